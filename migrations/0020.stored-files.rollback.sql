drop table stored_files;
