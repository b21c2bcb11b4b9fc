drop table deals;
