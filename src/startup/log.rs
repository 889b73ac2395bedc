//! The log as the engine reads it: pages, heads and the poll, over `messaging`.

use sqlx::PgPool;
use uuid::Uuid;

use crate::messaging::log::{self, PollState};
use crate::protocol::codes::Refusal;
use crate::realtime::{Later, LogReader, Polled, PolledTo};
use crate::updates::{StreamId, Update};

/// Reads of the log over the primary.
pub struct Log {
    pub pool: PgPool,
}

impl LogReader for Log {
    fn pages<'a>(&'a self, asks: &'a [(StreamId, u64)], limit: u32) -> Later<'a, Result<Vec<Vec<Update>>, Refusal>> {
        Box::pin(async move {
            let part = |user: bool| -> Vec<(Uuid, i64)> {
                let wanted = asks.iter().filter(|(stream, _)| stream.is_user() == user);
                wanted.map(|(stream, since)| (stream.uuid(), *since as i64)).collect()
            };
            let (of_threads, of_users) = (part(false), part(true));
            let threads = async {
                if of_threads.is_empty() {
                    Ok(Vec::new())
                } else {
                    log::thread_pages(&self.pool, &of_threads, i64::from(limit)).await
                }
            };
            let users = async {
                if of_users.is_empty() {
                    Ok(Vec::new())
                } else {
                    log::user_pages(&self.pool, &of_users, i64::from(limit)).await
                }
            };
            let (threads, users) = tokio::try_join!(threads, users)?;
            let (mut threads, mut users) = (threads.into_iter(), users.into_iter());
            Ok(asks
                .iter()
                .map(|(stream, _)| if stream.is_user() { users.next() } else { threads.next() }.unwrap_or_default())
                .collect())
        })
    }

    fn heads<'a>(&'a self, streams: &'a [StreamId]) -> Later<'a, Result<Vec<(StreamId, u64)>, Refusal>> {
        Box::pin(async move {
            let part = |user: bool| -> Vec<Uuid> {
                streams.iter().filter(|stream| stream.is_user() == user).map(|stream| stream.uuid()).collect()
            };
            log::heads(&self.pool, &part(false), &part(true)).await
        })
    }

    fn poll(&self, position: Option<String>, rows: u32) -> Later<'_, Result<Polled, Refusal>> {
        Box::pin(async move {
            let poll = log::poll(&self.pool, position, rows as i32).await?;
            let came = match poll.state {
                PollState::Whole => PolledTo::Present,
                PollState::More => PolledTo::Part,
                PollState::Lost => PolledTo::Nowhere,
            };
            Ok(Polled { position: poll.position, moved: poll.moved, came })
        })
    }
}
