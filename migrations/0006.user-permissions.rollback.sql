drop trigger role_permissions_deleted on role_permissions;
drop trigger role_permissions_inserted on role_permissions;
drop trigger user_roles_deleted on user_roles;
drop trigger user_roles_inserted on user_roles;
drop function role_permissions_changed();
drop function user_roles_changed();
drop function refresh_user_permissions(bigint, bigint[]);
