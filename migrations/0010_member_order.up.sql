-- Members in the order in which a thread shows them, so that the first hundred of ten thousand are not sorted out each time.
CREATE INDEX idx_thread_members_order ON thread_members (thread_id, role DESC, joined_at, profile_id) WHERE left_at IS NULL;
