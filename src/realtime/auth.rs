//! `auth`: who a socket speaks for, what the reply says, from where each stream is live. Also the refresh in place.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::commands::parse;
use super::inbox::{ResumeAnswer, SessionAddr, ToWorker};
use super::node::Shared;
use super::outbox::OUTBOX_BYTES;
use super::plan::{self, Position, StreamPlan};
use super::registry::Registration;
use super::session::{Phase, Session};
use super::worker::Worker;
use super::{Access, Credential, Welcome};
use crate::protocol::codes::{ErrorCode, Refusal};
use crate::protocol::size::fitting_threads;
use crate::protocol::time::Timestamp;
use crate::protocol::types::ThreadRow;
use crate::protocol::{CloseCode, reply};
use crate::updates::StreamId;

/// Threads in an `auth` reply, and fewer where they are large; `threads.list` gives the rest.
pub const LISTED_THREADS: usize = 200;
/// What else an `auth` reply says, at most, bytes.
const AUTH_BYTES: usize = 2 << 10;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AuthD {
    token: Option<String>,
    ticket: Option<String>,
    resume: Option<ResumeD>,
    /// Nothing acts on these three yet.
    #[serde(rename = "device")]
    _device: Option<DeviceD>,
    #[serde(rename = "presence")]
    _presence: Option<String>,
    #[serde(rename = "caps")]
    _caps: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceD {
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeD {
    epoch: Option<String>,
    #[serde(default)]
    streams: HashMap<String, u64>,
}

impl Worker {
    pub(super) fn auth(&mut self, slot: u32, session: &mut Session, id: Option<u64>, d: &str) {
        let auth = match parse::<AuthD>(d) {
            Ok(auth) => auth,
            Err(refusal) => return self.refuse(slot, session, id, "auth", &refusal),
        };
        let too_many = auth.resume.as_ref().is_some_and(|resume| resume.streams.len() > plan::STREAMS);
        let given = auth.token.map(Credential::Token).or(auth.ticket.map(Credential::Ticket));
        let kept = session.credential.as_deref().cloned();
        let refusal = if session.phase == Phase::Authenticating || session.refreshing {
            Some(Refusal::new(ErrorCode::Conflict, "auth is being answered"))
        } else if too_many {
            Some(Refusal::new(ErrorCode::Invalid, "resume.streams: at most 500; send further ones with sync"))
        } else if given.is_none() && kept.is_none() {
            Some(Refusal::new(ErrorCode::Unauthenticated, "token: missing"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            if session.phase == Phase::New && refusal.code == ErrorCode::Unauthenticated {
                return self.auth_failed(slot, session, id, &refusal);
            }
            return self.refuse(slot, session, id, "auth", &refusal);
        }
        let Some(credential) = given.or(kept) else { return };
        let (to, shared) = (self.addr(slot, session), self.shared.clone());
        if session.phase == Phase::Live {
            let profile_id = session.profile_id;
            session.refreshing = true;
            self.shared.runtime.spawn(refresh(shared, to, id, profile_id, credential));
        } else {
            session.phase = Phase::Authenticating;
            let task = self.shared.runtime.spawn(authenticate(shared, to, id, credential, auth.resume));
            session.auth_task = Some(task.abort_handle());
        }
    }

    pub(super) fn auth_failed(&mut self, slot: u32, session: &mut Session, id: Option<u64>, refusal: &Refusal) {
        self.refuse(slot, session, id, "auth", refusal);
        let refreshing = session.phase == Phase::Live;
        match refusal.code {
            // A live socket keeps its old token until that expires.
            _ if refreshing => session.refreshing = false,
            ErrorCode::Unauthenticated | ErrorCode::NotFound => {
                self.close(slot, session, CloseCode::Unauthenticated, None)
            }
            ErrorCode::Forbidden => self.close(slot, session, CloseCode::Revoked, None),
            _ => {
                session.phase = Phase::New;
                session.deadline_ms =
                    self.now_ms + self.shared.options.auth_timeout_ms + u64::from(refusal.retry_after_ms);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    pub(super) fn authenticated(
        &mut self,
        slot: u32,
        session: &mut Session,
        access: Access,
        registration: Registration,
        frame: bytes::Bytes,
        user: StreamPlan,
        threads: Vec<StreamPlan>,
        resumed: Option<ResumeAnswer>,
    ) {
        session.phase = Phase::Live;
        session.credential = None;
        session.auth_task = None;
        let options = &self.shared.options;
        let most = if options.limits_on { options.sessions_per_profile } else { usize::MAX };
        for old in self.shared.registry.settle(registration, most) {
            self.shared.to_worker(old, ToWorker::Close { to: old, code: CloseCode::Replaced, retry_after_ms: None });
        }
        session.registered = true;
        session.profile_id = access.profile_id;
        session.session_id = access.session_id;
        session.expires_at_unix_ms = access.expires_at_ms;
        // Spread over one interval, so that sessions that came together do not beat together.
        let heartbeat_ms = self.shared.options.heartbeat_ms;
        let spread_ms = u64::from(slot).wrapping_mul(0x9E37_79B9) % heartbeat_ms.max(1);
        session.next_heartbeat_ms = self.now_ms + heartbeat_ms / 2 + spread_ms / 2;
        session.threads = Vec::with_capacity(threads.len());
        session.push(frame);
        let plans = std::iter::once(user).chain(threads).collect();
        self.start_streams(slot, session, plans, resumed);
    }
}

pub(super) fn positions(access: Access, welcome: &Welcome) -> HashMap<StreamId, Position> {
    let user = (StreamId::User(access.profile_id), Position { head: welcome.user_seq, join_seq: 1 });
    let threads = welcome
        .threads
        .iter()
        .map(|(row, join_seq)| (StreamId::Thread(row.id), Position { head: row.seq as u64, join_seq: *join_seq }));
    threads.chain([user]).collect()
}

async fn refresh(shared: Arc<Shared>, to: SessionAddr, id: Option<u64>, profile_id: Uuid, credential: Credential) {
    let message = match shared.backend.authenticate(credential).await {
        Ok(access) if access.profile_id == profile_id => {
            #[derive(serde::Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Refreshed {
                expires_at: Timestamp,
            }
            let reply = reply::ok(id, &Refreshed { expires_at: Timestamp::from_unix_ms(access.expires_at_ms) });
            ToWorker::Refreshed { to, access, reply }
        }
        Ok(_) => {
            let refusal = Refusal::new(ErrorCode::Unauthenticated, "this token is for somebody else");
            ToWorker::AuthFailed { to, id, refusal }
        }
        Err(refusal) => ToWorker::AuthFailed { to, id, refusal },
    };
    shared.to_worker(to, message);
}

/// Registers the session first and reads the account's state afterwards, so that a revocation committed meanwhile finds it.
async fn authenticate(
    shared: Arc<Shared>,
    to: SessionAddr,
    id: Option<u64>,
    credential: Credential,
    resume: Option<ResumeD>,
) {
    let started = std::time::Instant::now();
    let message = match shared.backend.authenticate(credential).await {
        Ok(access) => {
            let registration = shared.registry.add(access.profile_id, access.session_id, to);
            match shared.backend.welcome(access).await {
                Ok(welcome) => welcome_message(&shared, to, id, access, registration, welcome, resume),
                Err(refusal) => ToWorker::AuthFailed { to, id, refusal },
            }
        }
        Err(refusal) => ToWorker::AuthFailed { to, id, refusal },
    };
    crate::telemetry::metrics().auth_seconds.observe(started.elapsed().as_secs_f64());
    shared.to_worker(to, message);
}

fn welcome_message(
    shared: &Shared,
    to: SessionAddr,
    id: Option<u64>,
    access: Access,
    registration: Registration,
    welcome: Welcome,
    resume: Option<ResumeD>,
) -> ToWorker {
    let epoch = shared.epoch();
    let first = welcome.threads.iter().take(LISTED_THREADS).map(|(row, _)| row);
    let listed = fitting_threads(first, OUTBOX_BYTES - AUTH_BYTES);
    let next = (listed < welcome.threads.len())
        .then(|| welcome.threads.get(listed.saturating_sub(1)).map(|(row, _)| shared.backend.cursor(row)))
        .flatten();
    let body = AuthOk {
        session: access.session_id,
        epoch: &epoch,
        expires_at: Timestamp::from_unix_ms(access.expires_at_ms),
        caps: [],
        profile: AuthProfile { id: access.profile_id, display_name: &welcome.display_name, role: welcome.role },
        streams: AuthStreams { user: welcome.user_seq },
        threads: welcome.threads[..listed].iter().map(|(row, _)| row).collect(),
        next,
    };
    // A socket that cannot match the reply still must get it: `auth` without `id` is answered with 0.
    let reply = reply::ok(Some(id.unwrap_or(0)), &body);
    let (mut plans, resumed) = match resume {
        Some(resume) => {
            let same = resume.epoch.as_deref() == Some(epoch.as_str());
            let names: Vec<(String, u64)> = resume.streams.into_iter().collect();
            let (plans, answer) = plan::judge(&names, same, access.profile_id, &positions(access, &welcome));
            (plans, Some(answer))
        }
        None => (Vec::new(), None),
    };
    let user_stream = StreamId::User(access.profile_id);
    let user = match plans.iter().position(|plan| plan.stream == user_stream) {
        Some(at) => plans.swap_remove(at),
        None => StreamPlan::live(user_stream, welcome.user_seq),
    };
    let planned: std::collections::HashSet<StreamId> = plans.iter().map(|plan| plan.stream).collect();
    let rest = welcome.threads.iter().map(|(row, _)| (StreamId::Thread(row.id), row.seq as u64));
    plans.extend(
        rest.filter(|(stream, _)| !planned.contains(stream)).map(|(stream, seq)| StreamPlan::live(stream, seq)),
    );
    ToWorker::Authenticated { to, access, registration, reply, user, threads: plans, resumed }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthOk<'a> {
    session: Uuid,
    epoch: &'a str,
    expires_at: Timestamp,
    caps: [&'static str; 0],
    profile: AuthProfile<'a>,
    streams: AuthStreams,
    threads: Vec<&'a ThreadRow>,
    next: Option<String>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthProfile<'a> {
    id: Uuid,
    display_name: &'a str,
    role: &'static str,
}

#[derive(serde::Serialize)]
struct AuthStreams {
    user: u64,
}
