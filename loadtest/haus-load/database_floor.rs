//! The floor of durable sends: the server's own database call, driven back to back with full batches. No sockets, no fan-out.
//! It calls the very function the server's batcher calls, so the two differ only in what surrounds it.

use crate::clock::{SECOND_NS, now_ns};
use crate::error::LoadError;
use crate::outgoing::CONTENT_BYTES;
use crate::paced::Spread;
use crate::procfs::round;
use crate::report::per_second;
use crate::tokens::Person;
use haus::messaging::send::{SendChecker, SendRequest, append};
use haus::protocol::types::SendBody;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::collections::HashMap;
use uuid::Uuid;

/// (rows a call, connections) of each measurement.
const SHAPES: [(usize, usize); 3] = [(256, 1), (128, 2), (64, 2)];

/// Measures each shape for `seconds`, over all threads of the file, or its largest alone.
pub fn run(url: &str, people: &[Person], spread: Spread, seconds: f64) -> Result<Value, LoadError> {
    let threads = members_by_thread(people, spread)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(crate::error::doing("runtime"))?;
    let mut shapes = Vec::new();
    for (rows, connections) in SHAPES {
        if connections <= threads.len() {
            shapes.push(runtime.block_on(measure(url, &threads, rows, connections, seconds))?);
        }
    }
    let best = shapes.iter().filter_map(|shape| shape["rowsPerS"].as_u64()).max();
    Ok(json!({"mode": "database", "threads": threads.len(), "rowsPerS": best, "shapes": shapes}))
}

/// Who may write in each thread; of one thread only, if asked, that with the most people.
fn members_by_thread(people: &[Person], spread: Spread) -> Result<Vec<(Uuid, Vec<Uuid>)>, LoadError> {
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| LoadError::Usage(format!("--tokens: {text:?} is no UUID")));
    let mut threads: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for person in people {
        for thread in &person.threads {
            threads.entry(id(thread)?).or_default().push(id(&person.profile_id)?);
        }
    }
    let mut threads: Vec<_> = threads.into_iter().collect();
    threads.sort_by_key(|(thread, members)| (usize::MAX - members.len(), *thread));
    if spread == Spread::OneThread {
        threads.truncate(1);
    }
    if threads.is_empty() { Err(LoadError::Usage("--tokens names no threads".to_owned())) } else { Ok(threads) }
}

async fn measure(
    url: &str,
    threads: &[(Uuid, Vec<Uuid>)],
    rows: usize,
    connections: usize,
    seconds: f64,
) -> Result<Value, LoadError> {
    let mut ready = Vec::new();
    for lane in 0..connections {
        // No thread is in two lanes, as in the server's batcher.
        let own: Vec<_> = threads.iter().skip(lane).step_by(connections).cloned().collect();
        ready.push((PgConnection::connect(url).await?, own));
    }
    let start = now_ns();
    let end = start + (seconds * SECOND_NS as f64) as u64;
    let mut lanes = tokio::task::JoinSet::new();
    for (connection, own) in ready {
        lanes.spawn(lane(connection, own, rows, end));
    }
    let (mut committed, mut calls) = (0, 0);
    while let Some(ended) = lanes.join_next().await {
        let (lane_rows, lane_calls) = ended.map_err(|e| LoadError::Failed(format!("database floor: {e}")))??;
        committed += lane_rows;
        calls += lane_calls;
    }
    let elapsed = now_ns() - start;
    let call_ms = elapsed as f64 / 1e6 * connections as f64 / calls.max(1) as f64;
    Ok(
        json!({"rowsPerCall": rows, "connections": connections, "rowsPerS": per_second(committed, elapsed), "meanCallMs": round(call_ms, 2)}),
    )
}

/// One connection, one call after another until `end`; returns rows committed and calls made.
async fn lane(
    mut connection: PgConnection,
    threads: Vec<(Uuid, Vec<Uuid>)>,
    rows: usize,
    end: u64,
) -> Result<(u64, u64), LoadError> {
    let checker = SendChecker::new(&[7; 32]);
    let content = "x".repeat(CONTENT_BYTES);
    let (mut committed, mut calls, mut at) = (0, 0, 0usize);
    while now_ns() < end {
        let mut batch = Vec::with_capacity(rows);
        for _ in 0..rows {
            let (thread, members) = &threads[at % threads.len()];
            let actor = members[(at / threads.len()) % members.len()];
            at += 1;
            batch.push(request(&checker, *thread, actor, &content)?);
        }
        let (outcomes, _) = append(&mut connection, &batch).await?;
        if let Some(refusal) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
            return Err(LoadError::Failed(format!("database floor: a row was refused: {refusal:?}")));
        }
        committed += outcomes.len() as u64;
        calls += 1;
    }
    Ok((committed, calls))
}

fn request(checker: &SendChecker, thread: Uuid, actor: Uuid, content: &str) -> Result<SendRequest, LoadError> {
    let body = SendBody { content: Some(content.to_owned()), nonce: Some(Uuid::new_v4()), ..SendBody::default() };
    checker.check(thread, actor, body).map_err(|refusal| LoadError::Failed(format!("database floor: {refusal:?}")))
}
