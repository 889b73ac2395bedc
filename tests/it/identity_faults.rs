//! Identity when clients go away and when the database does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use haus::identity::sessions::Client;

use crate::identity::{PASSWORD, assert_problem, login, refresh, register, text};
use crate::support::{Database, Node};

/// sqlx 0.9 loses the next write of a connection whose `begin` was cancelled; no cancelled request may get that far.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_cost_nobody_a_write() {
    let database = Database::new().await;
    let node = Node::start(&database, &["--limits=off"]).await;
    let ana = register(&node, "ana").await;
    let access = node.identity.verify_access(text(&ana, "accessToken")).unwrap();
    let mut tickets = 0;
    let mut cancelled = 0;
    for round in 0..600_u32 {
        let identity = Arc::clone(&node.identity);
        let token = text(&ana, "refreshToken").to_owned();
        let request = tokio::spawn(async move { identity.refresh(&token, Client::default()).await.is_ok() });
        // Timers are too coarse to land inside `begin`: wait on the clock, 0 to 1.2 ms.
        let moment = Instant::now() + Duration::from_micros(u64::from(round % 120) * 10);
        while Instant::now() < moment {
            tokio::task::yield_now().await;
        }
        request.abort();
        cancelled += u32::from(request.await.is_err());
        node.identity.create_ticket(access).await.unwrap();
        tickets += 1;
    }
    assert!(cancelled > 20, "only {cancelled} were cancelled in flight");
    node.pool.close().await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM ws_tickets").fetch_one(&database.owner).await.unwrap();
    assert_eq!(kept, tickets);
}

/// Forwards to Postgres; can go deaf (takes connections and bytes, gives nothing) or cut everything.
async fn gate(to: u16, deaf: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let deaf = Arc::clone(&deaf);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let watch = async {
                    while !deaf.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = watch => {}
                }
                while deaf.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn without_the_database_the_answer_is_unavailable_within_two_seconds() {
    let database = Database::new().await;
    let deaf = Arc::new(AtomicBool::new(false));
    let port = gate(database.port, Arc::clone(&deaf)).await;
    let node = Node::start_through(&database, port, &["--limits=off"]).await;
    let ana = register(&node, "ana").await;
    let token = text(&ana, "accessToken");

    deaf.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let new = json!({"email": "bea@example.org", "password": PASSWORD, "displayName": "bea"});
    let answers = tokio::join!(
        login(&node, "ana", PASSWORD),
        refresh(&node, &ana["refreshToken"]),
        node.call("POST", "/v1/auth/register", None, Some(new)),
        node.call("POST", "/v1/ws/ticket", Some(token), None),
    );
    let took = started.elapsed();
    for answer in [&answers.0, &answers.1, &answers.2, &answers.3] {
        assert_problem(answer, 503, "unavailable");
    }
    assert!(took < Duration::from_millis(2_900), "took {took:?}");
    assert!(node.identity.revoked().poll(&node.pool).await.is_err());
    assert!(node.identity.verify_access(token).is_ok(), "tokens are checked without the database");

    deaf.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    while login(&node, "ana", PASSWORD).await.0 != 200 {
        assert!(Instant::now() < deadline, "must recover by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let nowhere = Node::start_through(&database, 1, &[]).await;
    let started = Instant::now();
    assert_problem(&login(&nowhere, "ana", PASSWORD).await, 503, "unavailable");
    assert!(started.elapsed() < Duration::from_millis(2_900));
}
