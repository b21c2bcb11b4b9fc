-- How an address was composed is not known any more, and who logs in with it does so in either form.
select 1;
