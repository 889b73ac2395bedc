//! The REST calls of a history: threads and members, sends with `Idempotency-Key`, newest pages, the final log, metrics.
//! Recorded calls write their records here; a call that fails leaves no verdict (it may or may not have happened).

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::checker::record::{PageMessage, Record};
use crate::member::{Body, Identity};
use crate::recorder::{Recorder, body_hash};
use crate::rig::RigError;
use crate::session::Door;
use crate::wire::{Created, LogPage, Members, Message, Page, Refusal, SendOk};

/// Longer than any answer the protocol allows while the database is down.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const PAGE_LIMIT: usize = 100;
const LOG_LIMIT: usize = 1000;
/// Tries of a call that has to succeed once everything healed.
const TRIES: u32 = 20;

/// REST access to all nodes.
#[derive(Debug, Clone)]
pub struct Rest {
    pub doors: Arc<[Door]>,
    pub recorder: Arc<Recorder>,
    http: Client,
}

impl Rest {
    /// Access through the nodes' own addresses.
    ///
    /// # Errors
    /// [`RigError::Failed`] when the HTTP client cannot be made.
    pub fn new(doors: Arc<[Door]>, recorder: Arc<Recorder>) -> Result<Self, RigError> {
        let http = Client::builder().timeout(CALL_TIMEOUT).no_proxy().build();
        let http = http.map_err(|error| failed("HTTP client", &error))?;
        Ok(Self { doors, recorder, http })
    }

    /// Sends a message over REST and records what became of it. Returns whether it was answered for good.
    pub async fn send(&self, node: usize, identity: &Identity, body: &Body) -> bool {
        let door = &self.doors[node % self.doors.len()];
        let (client, thread, nonce, hash) = (identity.client, body.thread, body.nonce, body.hash);
        self.recorder.write(&Record::Send { client, thread, nonce, hash, node: door.name.clone() });
        let path = format!("/v1/threads/{thread}/messages");
        let call = self.request(door, Method::POST, &path, &identity.token);
        let call = call.header("Idempotency-Key", nonce.to_string()).json(&json!({"content": body.content}));
        let Ok(answer) = call.send().await else { return false };
        let status = answer.status();
        let Ok(text) = answer.text().await else { return false };
        if status.is_success() {
            let Ok(ok) = serde_json::from_str::<SendOk>(&text) else { return false };
            self.recorder.write(&Record::Ack { client, thread, nonce, hash, seq: ok.seq, dup: ok.dup });
            return true;
        }
        let retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if retryable {
            return false;
        }
        let code = serde_json::from_str::<Refusal>(&text).map_or_else(|_| status.to_string(), |refusal| refusal.code);
        self.recorder.write(&Record::Nack { client, thread, nonce, hash, code });
        true
    }

    /// Reads the newest page, or the one before number `before`, and records it. Returns the oldest number on it.
    pub async fn read(&self, node: usize, client: u32, token: &str, thread: Uuid, before: Option<u64>) -> Option<u64> {
        let door = &self.doors[node % self.doors.len()];
        let read = self.recorder.next_read();
        let cursor = before.map(|no| format!("&before={no}")).unwrap_or_default();
        self.recorder.write(&Record::Read { client, thread, read });
        let path = format!("/v1/threads/{thread}/messages?limit={PAGE_LIMIT}{cursor}");
        let text = self.get(door, &path, token).await?;
        let page = serde_json::from_str::<Page<'_>>(&text).ok()?;
        let messages: Vec<PageMessage> = page.messages.iter().map(Message::on_page).collect();
        let oldest = messages.iter().map(|message| message.no).min();
        self.recorder.write(&Record::Page { client, thread, read, newest: before.is_none(), messages });
        oldest
    }

    /// Makes a thread; returns its id.
    ///
    /// # Errors
    /// [`RigError::Failed`] with the answer.
    pub async fn make_thread(&self, owner: &str, kind: &str, members: &[Uuid]) -> Result<Uuid, RigError> {
        let mut body = json!({"type": kind, "memberIds": members});
        if kind == "GROUP" {
            body["name"] = json!("chaos");
        }
        let call = self.request(&self.doors[0], Method::POST, "/v1/threads", owner).json(&body);
        let answer = call.send().await.map_err(|error| failed("POST /v1/threads", &error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| failed("POST /v1/threads", &error))?;
        let made = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let id = made.get("id").or_else(|| made.pointer("/thread/id")).and_then(Value::as_str);
        let id = id.filter(|_| status.is_success()).and_then(|id| Uuid::parse_str(id).ok());
        id.ok_or_else(|| failed("POST /v1/threads", &format!("{status} {text}")))
    }

    /// Adds a member (`join`) or ends a membership. A refusal is no error: faults may be under way.
    pub async fn change_member(&self, node: usize, token: &str, thread: Uuid, profile: Uuid, join: bool) {
        let door = &self.doors[node % self.doors.len()];
        let path = format!("/v1/threads/{thread}/members");
        let call = if join {
            self.request(door, Method::POST, &path, token).json(&json!({"profileIds": [profile]}))
        } else {
            self.request(door, Method::DELETE, &format!("{path}/{profile}"), token)
        };
        // The log tells what happened.
        drop(call.send().await);
    }

    /// The head of a thread's log.
    ///
    /// # Errors
    /// [`RigError::Failed`] when no node answers.
    pub async fn head(&self, token: &str, thread: Uuid) -> Result<u64, RigError> {
        let text = self.get_surely(token, &format!("/v1/threads/{thread}/updates?since=0&limit=1")).await?;
        serde_json::from_str::<LogPage<'_>>(&text).map(|page| page.head).map_err(|error| failed("log", &error))
    }

    /// Reads the whole log of a thread and records it.
    ///
    /// # Errors
    /// [`RigError::Failed`] when no node answers or an answer cannot be read.
    pub async fn record_log(&self, token: &str, thread: Uuid) -> Result<(), RigError> {
        let mut since = 0;
        loop {
            let path = format!("/v1/threads/{thread}/updates?since={since}&limit={LOG_LIMIT}");
            let text = self.get_surely(token, &path).await?;
            let page: LogPage<'_> = serde_json::from_str(&text).map_err(|error| failed("log", &error))?;
            for raw in &page.updates {
                let record = log_record(thread, raw.get()).map_err(|error| failed("update of the log", &error))?;
                if let Record::Log { seq, .. } = record {
                    since = seq.max(since);
                }
                self.recorder.write(&record);
            }
            if page.updates.is_empty() || since >= page.head {
                return Ok(());
            }
        }
    }

    /// Holes that a node filled from its log since it started; 0 when it does not say.
    pub async fn repairs(&self, node: usize) -> u64 {
        let Some(text) = self.get(&self.doors[node % self.doors.len()], "/metrics", "").await else { return 0 };
        let lines = text.lines().filter(|line| line.starts_with("haus_feed_repairs_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|count| count as u64).sum()
    }

    async fn get_surely(&self, token: &str, path: &str) -> Result<String, RigError> {
        for attempt in 0..TRIES {
            let door = &self.doors[attempt as usize % self.doors.len()];
            if let Some(text) = self.get(door, path, token).await {
                return Ok(text);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Err(failed(path, &"no node answers"))
    }

    async fn get(&self, door: &Door, path: &str, token: &str) -> Option<String> {
        let answer = self.request(door, Method::GET, path, token).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    fn request(&self, door: &Door, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", door.direct));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }
}

fn log_record(thread: Uuid, raw: &str) -> Result<Record, serde_json::Error> {
    let frame: crate::wire::Frame<'_> = serde_json::from_str(raw)?;
    let (kind, seq) = (frame.up.unwrap_or_default().to_owned(), frame.seq.unwrap_or_default());
    let d = frame.d.map_or("{}", serde_json::value::RawValue::get);
    let (mut no, mut nonce, mut hash, mut sender, mut profiles) = (0, None, 0, None, Vec::new());
    if kind == "message.created" {
        let created: Created<'_> = serde_json::from_str(d)?;
        no = created.message.no;
        nonce = created.message.nonce;
        sender = created.message.sender_id;
        hash = body_hash(&sender.unwrap_or_default(), created.message.content.as_deref().unwrap_or_default());
    } else if kind.starts_with("member.") {
        profiles = serde_json::from_str::<Members>(d)?.profile_ids;
    }
    Ok(Record::Log { thread, seq, kind, no, nonce, hash, sender, profiles })
}

fn failed(what: &str, detail: &dyn std::fmt::Display) -> RigError {
    RigError::Failed { what: what.to_owned(), detail: detail.to_string() }
}
