drop function search_portfolio_ids(text[], integer);
drop table portfolio_properties;
drop table portfolios;
