drop table leads;
