drop function refuses_letters(leads);
