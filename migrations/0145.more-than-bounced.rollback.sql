revoke update (reason) on suppressions from reos_app;
