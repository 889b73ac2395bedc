DROP INDEX idx_thread_members_order;
