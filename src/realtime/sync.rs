//! `sync`: streams of a live socket that are caught up from positions, as `resume` does it.

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::commands::parse;
use super::inbox::{ResumeAnswer, ToWorker};
use super::node::Shared;
use super::plan::{self, Named, StreamPlan};
use super::reads::{Read, What};
use super::session::Session;
use super::worker::Worker;
use crate::protocol::codes::Refusal;
use crate::protocol::reply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncD {
    streams: Named,
}

impl Worker {
    pub(super) fn sync(&mut self, slot: u32, session: &mut Session, id: Option<u64>, d: &str) -> Result<(), Refusal> {
        parse::<SyncD>(d)?;
        session.in_work += 1;
        self.queue_read(slot, session, Read::new(id, What::Sync, d, None));
        Ok(())
    }

    pub(super) fn look_for_sync(&self, slot: u32, session: &Session, read: Read) {
        let (to, shared) = (self.addr(slot, session), self.shared.clone());
        let profile_id = session.profile_id;
        self.shared.runtime.spawn(async move {
            let message = match sync_plans(&shared, profile_id, &read.d).await {
                Ok((streams, resumed, user_seq)) => {
                    let reply = reply::ok(read.id, &serde_json::Map::new());
                    ToWorker::Sync { to, reply, streams, resumed, user_seq }
                }
                Err(refusal) => ToWorker::Answer { to, frame: reply::err(read.id, "sync", &refusal) },
            };
            shared.to_worker(to, message);
        });
    }

    pub(super) fn synced(
        &mut self,
        slot: u32,
        session: &mut Session,
        frame: Bytes,
        streams: Vec<StreamPlan>,
        resumed: ResumeAnswer,
        user_seq: u64,
    ) {
        self.take_read(session);
        session.in_work = session.in_work.saturating_sub(1);
        session.push(frame);
        self.start_streams(slot, session, streams, resumed, user_seq);
    }
}

/// Reads where the streams stand that are named, and no others; with the head of the user stream then.
async fn sync_plans(
    shared: &Shared,
    profile_id: Uuid,
    d: &str,
) -> Result<(Vec<StreamPlan>, ResumeAnswer, u64), Refusal> {
    let named = parse::<SyncD>(d)?.streams;
    let (user_seq, threads) = shared.backend.positions(profile_id, named.threads()).await?;
    let positions = plan::positions(profile_id, user_seq, &threads);
    let (plans, answer) = plan::judge(&named, true, profile_id, &positions);
    Ok((plans, answer, user_seq))
}
