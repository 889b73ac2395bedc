-- What a thread was called when a stay ended: whoever left is told no later name.
ALTER TABLE thread_spans ADD COLUMN leave_name text;
