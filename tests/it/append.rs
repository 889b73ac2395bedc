//! The door of sends, a batch at a time: the plain step and the judging one write the same, and a batch that is not all
//! plain is judged row by row.

use std::time::{Duration, Instant};

use haus::messaging::send::{Outcome, SendRequest, append, append_within};
use haus::protocol::codes::ErrorCode;
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::people::{World, code, request};
use crate::ports::ports;

/// What of a thread's log, messages and marks does not depend on ids and times.
async fn written(world: &World, thread: Uuid) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT concat_ws(' ', u.seq, u.no, u.kind, m.no, m.seq, m.type, m.content, m.media_url, m.media_type,
                          u.actor_id = m.sender_id, u.message_id = m.id, u.nonce = m.nonce, u.body_mac, u.at = m.sent_at,
                          t.seq, t.no, t.last_message_at = max(m.sent_at) OVER (), m.id >= lag(m.id) OVER (ORDER BY m.no),
                          k.mark_no, k.receipt_no, k.last_sent_at IS NOT NULL,
                          (SELECT g.no FROM messages g WHERE g.id = k.last_read_message_id))
         FROM thread_updates u JOIN messages m ON m.id = u.message_id JOIN threads t ON t.id = u.thread_id
         JOIN thread_members k ON k.thread_id = u.thread_id AND k.profile_id = u.actor_id
         WHERE u.thread_id = $1 ORDER BY u.seq",
    )
    .bind(thread)
    .fetch_all(&world.database.owner)
    .await
    .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The same sends for a thread: two people, text and media, several of one person.
fn sends(a: Uuid, b: Uuid, thread: Uuid) -> Vec<SendRequest> {
    let mut all = vec![request(a, thread, "one"), request(b, thread, "two"), request(a, thread, "three")];
    all[1].body.media_url = Some("media/1".into());
    all[1].body.media_type = Some(haus::protocol::types::MediaType::Image);
    all
}

fn codes(outcomes: &[Outcome]) -> Vec<Result<(i64, bool), ErrorCode>> {
    outcomes.iter().map(|outcome| outcome.as_ref().map(|ok| (ok.no, ok.dup)).map_err(|refusal| refusal.code)).collect()
}

#[tokio::test]
async fn both_steps_write_the_same() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let threads = [world.group(a, &[b]).await, world.group(a, &[b]).await];
    let [plain, judged] = threads;
    let mut connection = world.pool.acquire().await.unwrap();
    for _ in 0..2 {
        // Two threads in the plain call, their sends in turn.
        let (outcomes, updates) = append(&mut connection, &sends(a, b, plain)).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|ok| !ok.dup)));
        assert_eq!(updates.iter().map(|update| update.stream.uuid()).collect::<Vec<_>>(), [plain; 3]);
        let mut transaction = connection.begin().await.unwrap();
        append_within(&mut transaction, &sends(a, b, judged)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let rows = written(&world, plain).await;
    assert_eq!((rows.len(), &rows), (6, &written(&world, judged).await));
    assert!(rows[1].contains("MEDIA two media/1 IMAGE"), "{}", rows[1]);
}

#[tokio::test]
async fn one_row_that_is_not_plain_has_the_batch_judged() {
    let world = World::new().await;
    let [a, b, stranger] = world.people(3).await[..] else { panic!() };
    let (thread, other) = (world.group(a, &[b]).await, world.group(b, &[a]).await);
    let mut connection = world.pool.acquire().await.unwrap();
    let first = request(a, thread, "first");
    assert_eq!(codes(&append(&mut connection, std::slice::from_ref(&first)).await.unwrap().0), [Ok((1, false))]);

    // A repeated nonce alone: the unique index refuses the plain step, nothing is written twice.
    let (outcomes, updates) = append(&mut connection, &[request(b, other, "x"), first.clone()]).await.unwrap();
    assert_eq!((codes(&outcomes), updates.len()), (vec![Ok((1, false)), Ok((1, true))], 1));

    // A stranger among members; a repeated nonce with another body; all others go through, without a hole.
    let forged = SendRequest { mac: [9; 16], ..first.clone() };
    let batch = [
        request(a, thread, "second"),
        request(stranger, thread, "no"),
        forged,
        request(b, thread, "third"),
        request(b, other, "y"),
        first,
    ];
    let (outcomes, updates) = append(&mut connection, &batch).await.unwrap();
    let expected = vec![
        Ok((2, false)),
        Err(ErrorCode::NotFound),
        Err(ErrorCode::NonceConflict),
        Ok((3, false)),
        Ok((2, false)),
        Ok((1, true)),
    ];
    assert_eq!((codes(&outcomes), updates.len()), (expected, 3));
    assert_eq!((written(&world, thread).await.len(), written(&world, other).await.len()), (3, 2));

    // What a plain row may not be: in an archived or slow thread, from somebody who may not write.
    world.database.run(format!("UPDATE threads SET slow_mode_s = 60 WHERE id = '{thread}'")).await;
    let (outcomes, _) =
        append(&mut connection, &[request(b, thread, "slow"), request(a, thread, "admin")]).await.unwrap();
    assert_eq!(codes(&outcomes), [Err(ErrorCode::SlowMode), Ok((4, false))]);
    world.database.run(format!("UPDATE threads SET slow_mode_s = 0, is_archived = true WHERE id = '{thread}'")).await;
    assert_eq!(code(world.try_send(a, thread, "late").await), ErrorCode::ThreadArchived);
    world.database.run(format!("UPDATE profiles SET status = 'SUSPENDED' WHERE id = '{a}'")).await;
    assert_eq!(code(world.try_send(a, other, "banned").await), ErrorCode::Forbidden);
    world.database.run(format!("UPDATE thread_members SET left_at = now() WHERE profile_id = '{b}'")).await;
    assert_eq!(code(world.try_send(b, other, "gone").await), ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_connection_and_for_the_call_share_one_deadline() {
    let world = World::new().await;
    let [a, b] = world.people(2).await[..] else { panic!() };
    let thread = world.group(a, &[b]).await;
    // Both lanes' connections are elsewhere for 1.5 s, and then the thread's row is locked.
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
    let pool = pool.connect_with((*world.pool.connect_options()).clone()).await.unwrap();
    let busy = pool.acquire().await.unwrap();
    let mut lock = world.database.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM threads WHERE id = $1 FOR UPDATE").bind(thread).execute(&mut *lock).await.unwrap();
    let (ports, _) = ports(pool);
    let began = Instant::now();
    let sent = tokio::spawn(ports.sender.send(request(a, thread, "late")));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    drop(busy);
    assert_eq!(code(sent.await.unwrap()), ErrorCode::Unavailable);
    // Two deadlines, one after the other, were 3.3 s.
    assert!(began.elapsed() < Duration::from_millis(2_700), "{:?}", began.elapsed());
}
