drop function knows_time_zone(text);
