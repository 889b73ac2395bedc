DROP FUNCTION
    engine.log_pages, engine.visible_ranges, engine.visible_updates, engine.user_pages, engine.heads, engine.poll,
    engine.people_threads, engine.member_rows, engine.thread_list, engine.members, engine.history;
DROP TYPE engine.person_thread, engine.person_threads;
DROP VIEW engine.log_rows, engine.member_threads;
