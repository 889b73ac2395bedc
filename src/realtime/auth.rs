//! `auth`: who a socket speaks for, what the reply says, from where each stream is live. Also the refresh in place.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::backlog::{Backlog, Behind};
use super::commands::parse;
use super::inbox::{ResumeAnswer, SessionAddr, ToWorker};
use super::node::Shared;
use super::outbox::OUTBOX_BYTES;
use super::plan::{self, Named, StreamPlan};
use super::registry::Registration;
use super::session::{CatchUp, Phase, Session};
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
    streams: Named,
}

impl Worker {
    pub(super) fn auth(&mut self, slot: u32, session: &mut Session, id: Option<u64>, d: &str) {
        let auth = match parse::<AuthD>(d) {
            Ok(auth) => auth,
            Err(refusal) => return self.refuse(slot, session, id, "auth", &refusal),
        };
        let given = auth.token.map(Credential::Token).or(auth.ticket.map(Credential::Ticket));
        let kept = session.credential.as_deref().cloned();
        let refusal = if session.phase == Phase::Authenticating || session.refreshing {
            Some(Refusal::new(ErrorCode::Conflict, "auth is being answered"))
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
            let held = (session.profile_id, session.session_id);
            session.refreshing = true;
            let task = self.shared.runtime.spawn(refresh(shared, to, id, held, credential));
            session.auth_task = Some(task.abort_handle());
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
            _ if refreshing => {
                session.refreshing = false;
                session.auth_task = None;
            }
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
        frame: Bytes,
        streams: Backlog,
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
        // All but the user stream.
        session.threads = Vec::with_capacity(streams.len().saturating_sub(1));
        session.push(frame);
        session.catch_up = Some(Box::new(CatchUp { backlog: streams, resume: resumed, ..CatchUp::default() }));
        self.pump(slot, session);
    }

    /// A live socket has a new token; where that is of another signed-in session, the socket belongs to that one now.
    pub(super) fn refreshed(
        &mut self,
        session: &mut Session,
        access: Access,
        registration: Option<Registration>,
        frame: Bytes,
    ) {
        session.refreshing = false;
        session.auth_task = None;
        if let Some(registration) = registration {
            self.shared.registry.take_place(registration);
            session.session_id = access.session_id;
        }
        session.expires_at_unix_ms = access.expires_at_ms;
        session.expiring_told = false;
        session.push(frame);
    }
}

/// `held`: profile and session that the socket belongs to. One of another session is registered first and looked up
/// afterwards, as for a new socket.
async fn refresh(shared: Arc<Shared>, to: SessionAddr, id: Option<u64>, held: (Uuid, Uuid), credential: Credential) {
    let message = match refreshed(&shared, to, id, held, credential).await {
        Ok(message) => message,
        Err(refusal) => ToWorker::AuthFailed { to, id, refusal },
    };
    shared.to_worker(to, message);
}

async fn refreshed(
    shared: &Shared,
    to: SessionAddr,
    id: Option<u64>,
    (profile_id, session_id): (Uuid, Uuid),
    credential: Credential,
) -> Result<ToWorker, Refusal> {
    let access = shared.backend.authenticate(credential).await?;
    if access.profile_id != profile_id {
        return Err(Refusal::new(ErrorCode::Unauthenticated, "this token is for somebody else"));
    }
    let mut registration = None;
    if access.session_id != session_id {
        registration = Some(shared.registry.add(profile_id, access.session_id, to));
        shared.backend.stands(access).await?;
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Refreshed {
        expires_at: Timestamp,
    }
    let reply = reply::ok(id, &Refreshed { expires_at: Timestamp::from_unix_ms(access.expires_at_ms) });
    Ok(ToWorker::Refreshed { to, access, registration, reply })
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
    let listed = fitting_threads(welcome.threads.iter(), OUTBOX_BYTES - AUTH_BYTES);
    let last = listed.checked_sub(1).and_then(|last| welcome.threads.get(last));
    let next = last.filter(|_| listed < welcome.positions.len()).map(|row| shared.backend.cursor(row));
    let body = AuthOk {
        session: access.session_id,
        epoch: &epoch,
        expires_at: Timestamp::from_unix_ms(access.expires_at_ms),
        caps: [],
        profile: AuthProfile { id: access.profile_id, display_name: &welcome.display_name, role: welcome.role },
        streams: AuthStreams { user: welcome.user_seq },
        threads: welcome.threads[..listed].iter().collect(),
        next,
    };
    // A socket that cannot match the reply still must get it: `auth` without `id` is answered with 0.
    let reply = reply::ok(Some(id.unwrap_or(0)), &body);
    let (plans, resumed) = match resume {
        Some(resume) => {
            let same = resume.epoch.as_deref() == Some(epoch.as_str());
            let positions = plan::positions(access.profile_id, welcome.user_seq, &welcome.positions);
            let (plans, answer) = plan::judge(&resume.streams, same, access.profile_id, &positions);
            (plans, Some(answer))
        }
        None => (Vec::new(), None),
    };
    // Made here and not in the worker: others wait there. The streams that are resumed come first; of those that stand here
    // already, the second plan is not taken.
    let mut streams = Backlog::with_capacity(welcome.positions.len() + 1);
    let rest = welcome.positions.iter().map(|(id, position)| StreamPlan::live(StreamId::Thread(*id), position.head));
    let user = StreamPlan::live(StreamId::User(access.profile_id), welcome.user_seq);
    for plan in plans.into_iter().chain([user]).chain(rest) {
        if streams.get(plan.stream).is_none() {
            streams.push_back(Behind::new(plan));
        }
    }
    ToWorker::Authenticated { to, access, registration, reply, streams, resumed }
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
