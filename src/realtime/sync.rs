//! `sync`: streams of a live socket that are caught up from positions, as `resume` does it.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;

use super::Access;
use super::auth::positions;
use super::commands::parse;
use super::inbox::{ResumeAnswer, ToWorker};
use super::node::Shared;
use super::plan::{self, StreamPlan};
use super::reads::{Read, What};
use super::session::Session;
use super::worker::Worker;
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::reply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncD {
    streams: HashMap<String, u64>,
}

impl Worker {
    pub(super) fn sync(&mut self, slot: u32, session: &mut Session, id: Option<u64>, d: &str) -> Result<(), Refusal> {
        if parse::<SyncD>(d)?.streams.len() > plan::STREAMS {
            return Err(Refusal::new(ErrorCode::Invalid, "streams: at most 500"));
        }
        session.in_work += 1;
        self.queue_read(slot, session, Read::new(id, What::Sync, d, None));
        Ok(())
    }

    pub(super) fn look_for_sync(&self, slot: u32, session: &Session, read: Read) {
        let (to, shared) = (self.addr(slot, session), self.shared.clone());
        let access = Access {
            profile_id: session.profile_id,
            session_id: session.session_id,
            expires_at_ms: session.expires_at_unix_ms,
        };
        self.shared.runtime.spawn(async move {
            let message = match sync_plans(&shared, access, &read.d).await {
                Ok((streams, resumed)) => {
                    let reply = reply::ok(read.id, &serde_json::Map::new());
                    ToWorker::Sync { to, reply, streams, resumed }
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
    ) {
        self.take_read(session);
        session.in_work = session.in_work.saturating_sub(1);
        session.push(frame);
        self.start_streams(slot, session, streams, Some(resumed));
    }
}

async fn sync_plans(shared: &Shared, access: Access, d: &str) -> Result<(Vec<StreamPlan>, ResumeAnswer), Refusal> {
    let names: Vec<(String, u64)> = parse::<SyncD>(d)?.streams.into_iter().collect();
    let welcome = shared.backend.welcome(access).await?;
    Ok(plan::judge(&names, true, access.profile_id, &positions(access, &welcome)))
}
