//! People and threads for tests of messaging: made in the database, acting through the use cases.

use haus::messaging::Committed;
use haus::messaging::db::in_transaction;
use haus::messaging::members::{self, MemberPatch, MembersAdded};
use haus::messaging::send::{SendChecker, SendRequest, append};
use haus::messaging::threads::{self, CreatedThread, NewThread, ThreadPatch};
use haus::protocol::codes::{ErrorCode, Refusal};
use haus::protocol::frame;
use haus::protocol::types::{SendBody, SendOk, ThreadMember, ThreadRow, ThreadType};
use haus::updates::Update;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::Database;

/// A database with people in it.
pub struct World {
    pub database: Database,
    pub pool: PgPool,
}

impl World {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let pool = database.app_pool(database.port);
        Self { database, pool }
    }

    pub async fn person(&self) -> Uuid {
        self.person_with("ACTIVE", "MEMBER").await
    }

    pub async fn person_with(&self, status: &str, role: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.database
            .run(format!(
                "INSERT INTO users (id, email, email_bidx) VALUES ('{id}', 'x', sha256('{id}'));
                 INSERT INTO profiles (id, user_id, display_name, role, status)
                 VALUES ('{id}', '{id}', 'Person {id}', '{role}', '{status}')"
            ))
            .await;
        id
    }

    pub async fn people(&self, count: usize) -> Vec<Uuid> {
        let mut people = Vec::new();
        for _ in 0..count {
            people.push(self.person().await);
        }
        people
    }

    /// A GROUP of `creator`, its ADMIN, and `others`.
    pub async fn group(&self, creator: Uuid, others: &[Uuid]) -> Uuid {
        create(&self.pool, creator, new_group(others)).await.expect("a group").value.thread.id
    }

    pub async fn try_send(&self, actor: Uuid, thread: Uuid, content: &str) -> Result<SendOk, Refusal> {
        let mut connection = self.pool.acquire().await.unwrap();
        let (mut outcomes, _) = append(&mut connection, &[request(actor, thread, content)]).await.unwrap();
        outcomes.pop().unwrap()
    }

    pub async fn send(&self, actor: Uuid, thread: Uuid, content: &str) -> SendOk {
        self.try_send(actor, thread, content).await.expect("sent")
    }

    /// `count` messages `1`, `2` … in as few calls as the limits of a batch allow.
    pub async fn send_many(&self, actor: Uuid, thread: Uuid, count: usize) {
        let mut connection = self.pool.acquire().await.unwrap();
        let requests: Vec<SendRequest> = (1..=count).map(|n| request(actor, thread, &n.to_string())).collect();
        for batch in requests.chunks(100) {
            let (outcomes, _) = append(&mut connection, batch).await.unwrap();
            assert!(outcomes.iter().all(Result::is_ok));
        }
    }
}

/// The use cases, each in a transaction of its own.
pub async fn create(pool: &PgPool, actor: Uuid, new: NewThread) -> Result<Committed<CreatedThread>, Refusal> {
    create_within(pool, actor, new, 2000).await
}

/// [`create`] where nobody may be in more than `most` threads.
pub async fn create_within(
    pool: &PgPool,
    actor: Uuid,
    new: NewThread,
    most: i32,
) -> Result<Committed<CreatedThread>, Refusal> {
    in_transaction(pool, "test", move |connection| Box::pin(threads::create(connection, actor, new, most))).await
}

pub async fn patch(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    patch: ThreadPatch,
) -> Result<Committed<ThreadRow>, Refusal> {
    in_transaction(pool, "test", move |connection| Box::pin(threads::patch(connection, actor, thread, patch))).await
}

pub async fn add(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    people: Vec<Uuid>,
) -> Result<Committed<MembersAdded>, Refusal> {
    in_transaction(pool, "test", move |connection| Box::pin(members::add(connection, actor, thread, people, 2000)))
        .await
}

pub async fn remove(pool: &PgPool, actor: Uuid, thread: Uuid, profile: Uuid) -> Result<Committed<()>, Refusal> {
    in_transaction(pool, "test", move |connection| Box::pin(members::remove(connection, actor, thread, profile))).await
}

pub async fn change(
    pool: &PgPool,
    actor: Uuid,
    thread: Uuid,
    profile: Uuid,
    patch: MemberPatch,
) -> Result<Committed<ThreadMember>, Refusal> {
    let work = in_transaction(pool, "test", move |connection| {
        Box::pin(members::change(connection, actor, thread, profile, patch))
    });
    work.await
}

pub async fn one(pool: &PgPool, actor: Uuid, thread: Uuid, profile: Uuid) -> Result<ThreadMember, Refusal> {
    in_transaction(pool, "test", move |connection| Box::pin(members::one(connection, actor, thread, profile))).await
}

pub fn new_group(others: &[Uuid]) -> NewThread {
    NewThread {
        kind: ThreadType::Group,
        member_ids: others.to_vec(),
        name: Some("a group".into()),
        description: None,
        house_id: None,
    }
}

pub fn new_direct(other: Uuid) -> NewThread {
    NewThread { kind: ThreadType::Direct, name: None, ..new_group(&[other]) }
}

pub fn request(actor: Uuid, thread: Uuid, content: &str) -> SendRequest {
    let body = SendBody { content: Some(content.into()), nonce: Some(Uuid::now_v7()), ..SendBody::default() };
    SendChecker::new(&[9; 32]).check(thread, actor, body).expect("valid")
}

/// The JSON of an update's frame.
pub fn json(update: &Update) -> Value {
    serde_json::from_slice(frame::payload(&update.frame)).expect("JSON in a frame")
}

pub fn code<T>(result: Result<T, Refusal>) -> ErrorCode {
    match result {
        Ok(_) => panic!("not refused"),
        Err(refusal) => refusal.code,
    }
}
