ALTER TABLE thread_spans DROP COLUMN leave_name;
