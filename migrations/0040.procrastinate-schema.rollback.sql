drop schema procrastinate cascade;
