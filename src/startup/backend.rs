//! The rest of the product as the engine sees it: its traits, implemented over `identity` and `messaging`.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgPool;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::welcome::Welcomes;
use crate::courier::Courier;
use crate::identity::profiles::PROFILES;
use crate::identity::{self, Identity};
use crate::limits::{RateLimiter, Work, WorkRates};
use crate::messaging::batcher::{Batcher, CommitSink, Hold};
use crate::messaging::history::{self, Range};
use crate::messaging::lookups::Lookups;
use crate::messaging::send::{self, Outcome, SendChecker, SendRequest};
use crate::messaging::{Committed, Publisher, Sender, people, read_marks, rows};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::size::{PAGE_BYTES, fitting};
use crate::protocol::types::{SendBody, ThreadRow};
use crate::protocol::{json, reply};
use crate::realtime::hub::Hub;
use crate::realtime::inbox::{SessionAddr, Snapshot, ToWorker};
use crate::realtime::plan::Position;
use crate::realtime::{Access, Backend, CommandName, Credential, Later, Positions, SocketReply, UserSnapshot, Welcome};
use crate::updates::{StreamId, Update};

/// Whom the answer to a send is for.
pub enum Reply {
    Socket(SocketReply),
    Request(oneshot::Sender<Outcome>),
}

/// Feeds the node itself, then the others.
pub struct Announcer {
    pub hub: Arc<Hub>,
    pub courier: Arc<dyn Courier>,
}

impl Publisher for Announcer {
    fn publish(&self, updates: Vec<Update>) {
        self.hub.ingest(&updates);
        self.courier.publish(&updates);
    }
}

impl CommitSink<Reply> for Announcer {
    /// Own sessions, then answers (so that a sender's update and its reply leave in one write), then other nodes.
    /// A thread with many readers here is held until they have got it.
    fn committed(&self, updates: Vec<Update>, answers: Vec<(Reply, Outcome)>, hold: &dyn Fn(Uuid) -> Option<Hold>) {
        self.hub.ingest_keeping(&updates, &|stream| hold(stream.uuid()));
        let mut by_worker: Vec<Vec<(SessionAddr, Bytes, Uuid)>> = Vec::new();
        for (reply, outcome) in answers {
            match reply {
                Reply::Request(answer) => {
                    let _ = answer.send(outcome);
                }
                Reply::Socket(SocketReply { to, id, thread_id }) => {
                    let frame = match outcome {
                        Ok(ok) => reply::ok(id, &ok),
                        Err(refusal) => reply::err(id, "message.send", &refusal),
                    };
                    let worker = usize::from(to.worker);
                    if by_worker.len() <= worker {
                        by_worker.resize_with(worker + 1, Vec::new);
                    }
                    by_worker[worker].push((to, frame, thread_id));
                }
            }
        }
        for (worker, replies) in by_worker.into_iter().enumerate().filter(|(_, replies)| !replies.is_empty()) {
            if let Some(inbox) = self.hub.inbox(worker as u16) {
                inbox.push(ToWorker::Replies(replies));
            }
        }
        self.courier.publish(&updates);
    }
}

/// Implements the engine's traits.
pub struct Product {
    pub identity: Arc<Identity>,
    pub pool: PgPool,
    pub welcomes: Arc<Welcomes>,
    pub batcher: Arc<Batcher<Reply>>,
    pub checker: Arc<SendChecker>,
    pub rates: Arc<RateLimiter>,
    /// Rates of everything else, the same for requests.
    pub work: Arc<WorkRates>,
    pub lookups: Arc<Lookups<Reply>>,
    pub publisher: Arc<dyn Publisher>,
    /// Told when the database's settings are unsafe: nothing is acknowledged then.
    pub unsafe_database: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Product {
    /// Queues a checked send. One above the rate takes no place in the queue: its nonce is looked up, where the person may
    /// still ask for that.
    fn submit(&self, request: SendRequest, reply: Reply) {
        if (self.unsafe_database)().is_some() {
            return self.batcher.answer(reply, Err(Refusal::unavailable()));
        }
        let Err(wait_ms) = self.rates.check(request.actor_id, 1) else { return self.batcher.submit(request, reply) };
        let refused = match self.work.take_of_person(Work::Lookup, request.actor_id) {
            Ok(()) => self.lookups.submit(&request, wait_ms, reply).err(),
            Err(_) => Some(reply),
        };
        if let Some(reply) = refused {
            self.batcher.answer(reply, Err(send::rate_limited(wait_ms)));
        }
    }

    fn publish<T>(&self, committed: Committed<T>) -> T {
        if !committed.updates.is_empty() {
            self.publisher.publish(committed.updates);
        }
        committed.value
    }

    async fn run(&self, actor: Uuid, name: CommandName, d: &str) -> Result<Box<RawValue>, Refusal> {
        match name {
            CommandName::Read => {
                let d: ReadD = parse(d)?;
                let committed = read_marks::read(&self.pool, actor, d.thread_id, d.no, d.read_rev).await?;
                raw(&self.publish(committed))
            }
            CommandName::ThreadOpen => {
                let d: OpenD = parse(d)?;
                raw(&history::open(&self.pool, actor, d.thread_id, limit(d.limit, 50)?).await?)
            }
            CommandName::ThreadsList => {
                let d: ListD = parse(d)?;
                let page = rows::list(&self.pool, actor, d.cursor.as_deref(), limit(d.limit, 50)?).await?;
                #[derive(serde::Serialize)]
                struct Listed {
                    threads: Vec<ThreadRow>,
                    next: Option<String>,
                }
                raw(&Listed { threads: page.threads.into_iter().map(|thread| thread.row).collect(), next: page.next })
            }
            CommandName::ProfilesGet => {
                let d: ProfilesD = parse(d)?;
                if d.ids.len() > PROFILES {
                    return Err(Refusal::new(ErrorCode::Invalid, format!("ids: at most {PROFILES}")));
                }
                let mut profiles = self.identity.profiles(actor, &d.ids).await?;
                let rest = profiles.split_off(fitting(&profiles, PAGE_BYTES)).into_iter().map(|left| left.id).collect();
                raw(&Found { profiles, rest })
            }
            CommandName::History => {
                let d: HistoryD = parse(d)?;
                let range = Range::of(d.before, d.after, d.around)?;
                raw(&history::history(&self.pool, actor, d.thread_id, range, limit(d.limit, 50)?).await?)
            }
        }
    }
}

impl Sender for Product {
    fn send(&self, request: SendRequest) -> BoxFuture<'static, Outcome> {
        let (answer, waiting) = oneshot::channel();
        self.submit(request, Reply::Request(answer));
        Box::pin(async move { waiting.await.unwrap_or_else(|_| Err(Refusal::unavailable())) })
    }
}

impl Backend for Product {
    fn authenticate(&self, credential: Credential) -> Later<'_, Result<Access, Refusal>> {
        Box::pin(async move {
            let access = match credential {
                Credential::Token(token) => self.identity.verify_access(&token)?,
                Credential::Ticket(ticket) => self.identity.redeem_ticket(&ticket).await?,
            };
            Ok(Access {
                profile_id: access.profile_id,
                session_id: access.session_id,
                expires_at_ms: access.expires_at_ms,
            })
        })
    }

    fn welcome(&self, access: Access) -> Later<'_, Result<Welcome, Refusal>> {
        Box::pin(async move {
            let identified = identity::Access {
                profile_id: access.profile_id,
                session_id: access.session_id,
                expires_at_ms: access.expires_at_ms,
            };
            let person = self.welcomes.person(identified).await?;
            Ok(Welcome {
                positions: person.positions().map(position).collect(),
                display_name: person.display_name,
                role: person.role.as_str(),
                user_seq: person.user_seq as u64,
                threads: person.threads.into_iter().map(|thread| thread.row).collect(),
            })
        })
    }

    fn stands(&self, access: Access) -> Later<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let Access { profile_id, session_id, expires_at_ms } = access;
            let access = identity::Access { profile_id, session_id, expires_at_ms };
            let found = self.identity.people_now(&[access]).await?.pop();
            found.unwrap_or_else(|| Err(Refusal::unavailable()))?.may(identity::Action::OpenSocket)
        })
    }

    fn positions(&self, profile_id: Uuid, threads: Vec<Uuid>) -> Later<'_, Result<Positions, Refusal>> {
        Box::pin(async move {
            let (user_seq, threads) = people::positions(&self.pool, profile_id, threads).await?;
            Ok((user_seq as u64, threads.into_iter().map(position).collect()))
        })
    }

    fn send(&self, actor_id: Uuid, thread_id: Uuid, body: SendBody, to: SocketReply) {
        match self.checker.check(thread_id, actor_id, body) {
            Ok(request) => self.submit(request, Reply::Socket(to)),
            Err(refusal) => self.batcher.answer(Reply::Socket(to), Err(refusal)),
        }
    }

    fn command<'a>(
        &'a self,
        actor_id: Uuid,
        address: IpAddr,
        name: CommandName,
        d: &'a str,
    ) -> Later<'a, Result<Box<RawValue>, Refusal>> {
        let work = if name == CommandName::Read { Work::Mark } else { Work::Page };
        let taken = self.work.take(work, actor_id, address, 1);
        Box::pin(async move {
            taken.map_err(|wait_ms| {
                Refusal::new(ErrorCode::RateLimited, "too many commands; slow down").retry_after(wait_ms)
            })?;
            self.run(actor_id, name, d).await
        })
    }

    fn snapshot(&self, actor_id: Uuid, stream: StreamId) -> Later<'_, Result<Snapshot, Refusal>> {
        Box::pin(async move {
            match stream {
                StreamId::Thread(id) => {
                    let d = history::snapshot(&self.pool, actor_id, id).await?;
                    let seq = d.seq as u64;
                    Ok(Snapshot::Thread { frame: reply::snapshot(&id.to_string(), seq, &d), seq })
                }
                StreamId::User(id) => {
                    let history::UserSnapshot { seq, threads, positions, next, inbox, settings } =
                        history::user_snapshot(&self.pool, id).await?;
                    let positions = positions.into_iter().map(position).collect();
                    let seq = seq as u64;
                    Ok(Snapshot::User(Box::new(UserSnapshot { seq, threads, positions, next, inbox, settings })))
                }
            }
        })
    }

    fn cursor(&self, last: &ThreadRow) -> String {
        rows::cursor_after(last)
    }
}

fn position(place: people::ThreadPosition) -> (Uuid, Position) {
    (place.thread_id, Position { head: place.seq as u64, join_seq: place.join_seq as u64 })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadD {
    thread_id: Uuid,
    no: i64,
    read_rev: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OpenD {
    thread_id: Uuid,
    limit: Option<i64>,
    /// Whose presence to show; nothing acts on it yet.
    #[serde(rename = "watch")]
    _watch: Option<Vec<Uuid>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListD {
    cursor: Option<String>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfilesD {
    ids: Vec<Uuid>,
}

#[derive(serde::Serialize)]
struct Found {
    profiles: Vec<crate::protocol::types::Profile>,
    /// For which there was no room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rest: Vec<Uuid>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HistoryD {
    thread_id: Uuid,
    before: Option<i64>,
    after: Option<i64>,
    around: Option<i64>,
    limit: Option<i64>,
}

fn parse<'a, T: Deserialize<'a>>(d: &'a str) -> Result<T, Refusal> {
    json::from_str(d).map_err(|error| Refusal::new(ErrorCode::Invalid, format!("d: {error}")))
}

fn limit(asked: Option<i64>, default: i64) -> Result<i64, Refusal> {
    match asked.unwrap_or(default) {
        fits @ 1..=100 => Ok(fits),
        _ => Err(Refusal::new(ErrorCode::Invalid, "limit: 1 to 100")),
    }
}

fn raw<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>, Refusal> {
    to_raw_value(value).map_err(|_| Refusal::new(ErrorCode::Internal, "the answer could not be rendered"))
}
