//! Holes of feeds: read together, apart where one is too much, jumped over where nothing helps; a node that slept through
//! more than it can hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haus::courier::Courier;
use haus::courier::in_process::InProcess;
use haus::messaging::send::append;
use haus::protocol::codes::{ErrorCode, Refusal};
use haus::realtime::inbox::{Inbox, SessionAddr, ToWorker};
use haus::realtime::node::Node;
use haus::realtime::{Later, LogReader, Polled, catch_up::PageReader, hub::Hub, repair};
use haus::startup::log::Log;
use haus::telemetry::metrics;
use haus::updates::{StreamId, Update};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::{Person, cluster};
use crate::people::{World, request};
use crate::rig::Folder;
use crate::socket::Client;

/// The true log, of which some streams cannot be read, or nothing at all.
struct Faulty {
    log: Log,
    /// Streams any page with which fails, and from how many asked updates on.
    poisoned: Mutex<HashMap<StreamId, u32>>,
    is_down: AtomicBool,
    /// Only polls fail.
    is_unpolled: AtomicBool,
    /// Updates in a page at most; 0: as many as asked for.
    page: AtomicU32,
    /// Streams asked for in one statement, by how often.
    widths: Mutex<BTreeMap<usize, u32>>,
    polls: AtomicU32,
}

impl Faulty {
    fn over(world: &World) -> Arc<Self> {
        let log = Log { pool: world.pool.clone() };
        Arc::new(Self {
            log,
            poisoned: Mutex::default(),
            is_down: false.into(),
            is_unpolled: false.into(),
            page: 0.into(),
            widths: Mutex::default(),
            polls: 0.into(),
        })
    }
}

impl LogReader for Faulty {
    fn pages<'a>(&'a self, asks: &'a [(StreamId, u64)], limit: u32) -> Later<'a, Result<Vec<Vec<Update>>, Refusal>> {
        *self.widths.lock().unwrap().entry(asks.len()).or_default() += 1;
        let poisoned = self.poisoned.lock().unwrap();
        let is_bad = |stream: &StreamId| poisoned.get(stream).is_some_and(|from| limit >= *from);
        if self.is_down.load(Ordering::SeqCst) || asks.iter().any(|(stream, _)| is_bad(stream)) {
            return Box::pin(async { Err(Refusal::new(ErrorCode::Unavailable, "too much")) });
        }
        let page = self.page.load(Ordering::SeqCst);
        self.log.pages(asks, if page > 0 { limit.min(page) } else { limit })
    }

    fn heads<'a>(&'a self, streams: &'a [StreamId]) -> Later<'a, Result<Vec<(StreamId, u64)>, Refusal>> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Box::pin(async { Err(Refusal::unavailable()) }),
            false => self.log.heads(streams),
        }
    }

    fn poll(&self, position: Option<String>, rows: u32) -> Later<'_, Result<Polled, Refusal>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        match self.is_down.load(Ordering::SeqCst) || self.is_unpolled.load(Ordering::SeqCst) {
            true => Box::pin(async { Err(Refusal::unavailable()) }),
            false => self.log.poll(position, rows),
        }
    }
}

/// A hub with one worker that nobody runs: what it is handed can be looked at.
fn hub() -> (Arc<Hub>, Arc<repair::Repairs>, Arc<dyn Courier>, Arc<Inbox>) {
    let courier: Arc<dyn Courier> = Arc::new(InProcess::new(Arc::new(|_| {})));
    let (hub, repairs) = Node::hub(&courier);
    let inbox = Arc::new(Inbox::new(Box::new(|| {})));
    hub.set_inboxes(vec![inbox.clone()]);
    (hub, repairs, courier, inbox)
}

/// `count` threads with 20 messages each, their feeds standing at 1.
async fn sleepers(world: &World, hub: &Hub, count: usize) -> Vec<StreamId> {
    let [ana, ben] = world.people(2).await[..] else { panic!() };
    let mut streams = Vec::new();
    for _ in 0..count {
        let thread = world.group(ana, &[ben]).await;
        world.send_many(ana, thread, 20).await;
        streams.push(StreamId::Thread(thread));
        hub.attach(0, StreamId::Thread(thread), 1, 1);
    }
    streams
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_that_cannot_be_read_stops_no_other_and_is_jumped() {
    let world = World::new().await;
    let (hub, repairs, courier, inbox) = hub();
    let streams = sleepers(&world, &hub, 40).await;
    let log = Faulty::over(&world);
    // One that cannot be read at all, and one that can in small parts.
    log.poisoned.lock().unwrap().extend([(streams[7], 0), (streams[11], 5)]);
    let jumps = metrics().feed_jumps.get();
    repair::spawn(hub.clone(), repairs.clone(), log.clone(), courier, Instant::now());
    streams.iter().for_each(|stream| hub.know(*stream, 21));
    until("filled, or jumped", || streams.iter().all(|stream| hub.head(*stream) == Some(21))).await;
    assert!(metrics().feed_jumps.get() > jumps);
    assert!(!repairs.is_late());
    let mut messages = Vec::new();
    inbox.drain(&mut messages);
    let mut runs: HashMap<StreamId, u64> = HashMap::new();
    let mut jumped = Vec::new();
    for message in messages {
        match message {
            ToWorker::Run(run) => {
                for update in run.updates.iter() {
                    let next = runs.entry(run.stream).or_insert(2);
                    assert_eq!(update.seq, *next, "in order");
                    *next += 1;
                }
            }
            ToWorker::Jump { stream, head, .. } => jumped.push((stream, head)),
            _ => panic!("something else"),
        }
    }
    assert_eq!(jumped, [(streams[7], 21)]);
    assert_eq!((runs.len(), runs.values().all(|next| *next == 22)), (39, true));
    // Well again: the next hole is filled.
    log.poisoned.lock().unwrap().clear();
    let StreamId::Thread(thread) = streams[7] else { panic!() };
    let members = sqlx::query_scalar("SELECT profile_id FROM thread_members WHERE thread_id = $1").bind(thread);
    let ana: Uuid = members.fetch_one(&world.pool).await.unwrap();
    world.send(ana, thread, "again").await;
    hub.know(streams[7], 22);
    until("filled again", || hub.head(streams[7]) == Some(22)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_that_a_few_pages_do_not_close_are_left_to_the_sessions_and_none_waits_for_the_others() {
    let world = World::new().await;
    let (hub, repairs, courier, inbox) = hub();
    let streams = sleepers(&world, &hub, 100).await;
    let log = Faulty::over(&world);
    log.page.store(3, Ordering::SeqCst);
    streams.iter().for_each(|stream| hub.know(*stream, 21));
    repair::spawn(hub.clone(), repairs.clone(), log.clone(), courier, Instant::now());
    until("all stand at their heads", || streams.iter().all(|stream| hub.head(*stream) == Some(21))).await;
    let mut messages = Vec::new();
    inbox.drain(&mut messages);
    // Four pages of three, then a jump; 64 streams share a read, and all have had one before any has its second.
    let (mut began, mut twice, mut runs, mut jumps) = (std::collections::HashSet::new(), None, 0, 0);
    for message in &messages {
        match message {
            ToWorker::Run(run) => {
                runs += run.updates.len();
                if !began.insert(run.stream) {
                    twice.get_or_insert(began.len());
                }
            }
            ToWorker::Jump { head: 21, .. } => jumps += 1,
            _ => panic!("something else"),
        }
    }
    assert_eq!((runs, jumps), (100 * 4 * 3, 100));
    assert!(twice.is_some_and(|begun| begun == 100), "only {twice:?} of 100 had begun when one went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_away_is_gone_through_in_small_reads_and_what_it_never_held_is_forgotten() {
    let world = World::new().await;
    let (hub, repairs, courier, _inbox) = hub();
    let streams = sleepers(&world, &hub, 100).await;
    let log = Faulty::over(&world);
    log.is_down.store(true, Ordering::SeqCst);
    let started = Instant::now();
    repair::spawn(hub.clone(), repairs.clone(), log.clone(), courier, started);
    streams.iter().for_each(|stream| hub.know(*stream, 21));
    until("it is late", || repairs.is_late()).await;
    assert!(streams.iter().all(|stream| hub.head(*stream) == Some(1)), "nobody is blamed");
    log.is_down.store(false, Ordering::SeqCst);
    until("filled", || streams.iter().all(|stream| hub.head(*stream) == Some(21))).await;
    until("in time again", || !repairs.is_late()).await;
    assert!(log.widths.lock().unwrap().keys().all(|width| *width <= 64));
    // The polls failed: heads were read anew, with nobody to announce this.
    let StreamId::Thread(thread) = streams[0] else { panic!() };
    let members = sqlx::query_scalar("SELECT profile_id FROM thread_members WHERE thread_id = $1").bind(thread);
    let ana: Uuid = members.fetch_one(&world.pool).await.unwrap();
    world.send(ana, thread, "unannounced").await;
    repairs.poll_now();
    until("polled", || hub.head(streams[0]) == Some(22)).await;
    // Announced by mistake: no hole for ever.
    hub.know(streams[1], 400);
    until("corrected", || hub.hole(streams[1]).is_none()).await;
    assert_eq!(hub.head(streams[1]), Some(21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_announced_before_the_first_poll_is_found_by_it() {
    let world = World::new().await;
    let (hub, repairs, courier, _inbox) = hub();
    let log = Faulty::over(&world);
    log.is_unpolled.store(true, Ordering::SeqCst);
    let streams = sleepers(&world, &hub, 3).await;
    repair::spawn(hub.clone(), repairs.clone(), log.clone(), courier, Instant::now());
    until("their heads were looked up", || streams.iter().all(|stream| hub.head(*stream) == Some(21))).await;
    let StreamId::Thread(thread) = streams[0] else { panic!() };
    let members = sqlx::query_scalar("SELECT profile_id FROM thread_members WHERE thread_id = $1").bind(thread);
    let ana: Uuid = members.fetch_one(&world.pool).await.unwrap();
    world.send(ana, thread, "unannounced").await;
    log.is_unpolled.store(false, Ordering::SeqCst);
    until("found", || hub.head(streams[0]) == Some(22)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_after_gaps_keep_their_distance() {
    let world = World::new().await;
    let (hub, repairs, courier, _inbox) = hub();
    let log = Faulty::over(&world);
    repair::spawn(hub, repairs.clone(), log.clone(), courier, Instant::now());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        repairs.poll_now();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let polls = log.polls.load(Ordering::SeqCst);
    assert!((2..=12).contains(&polls), "{polls} polls in a second of gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_read_fails_its_own_askers_alone() {
    let world = World::new().await;
    let (hub, _repairs, _courier, inbox) = hub();
    let streams = sleepers(&world, &hub, 40).await;
    let log = Faulty::over(&world);
    log.poisoned.lock().unwrap().extend([(streams[3], 0), (streams[5], 10)]);
    let pages = Arc::new(PageReader::default());
    let to = |slot| SessionAddr { worker: 0, slot, generation: 0 };
    // Asked before the readers start, so that they share statements.
    for (slot, stream) in streams.iter().enumerate() {
        pages.ask(*stream, 1, to(slot as u32));
        pages.ask(*stream, 1, to(1_000 + slot as u32));
    }
    let reader: Arc<dyn LogReader> = log.clone();
    pages.start(&hub, &reader);
    let mut answers: HashMap<u32, Result<usize, ErrorCode>> = HashMap::new();
    let began = Instant::now();
    while answers.len() < 80 {
        let mut messages = Vec::new();
        inbox.drain(&mut messages);
        for message in messages {
            let ToWorker::Page { to, since: 1, result, .. } = message else { panic!("something else") };
            let answer = result.map(|page| page.len()).map_err(|refusal| refusal.code);
            assert!(answers.insert(to.slot, answer).is_none(), "one answer an ask");
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{} answers", answers.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for slot in 0..40 {
        let expected = match slot {
            3 => Err(ErrorCode::Internal),
            5 => Ok(8),
            _ => Ok(20),
        };
        assert_eq!((answers[&slot], answers[&(1_000 + slot)]), (expected, expected), "{slot}");
    }
    // Nothing can be read: everybody is asked to come again.
    log.is_down.store(true, Ordering::SeqCst);
    pages.ask(streams[0], 1, to(0));
    pages.ask(streams[3], 1, to(3));
    let mut refused = Vec::new();
    let began = Instant::now();
    while refused.len() < 2 {
        let mut messages = Vec::new();
        inbox.drain(&mut messages);
        for message in messages {
            let ToWorker::Page { to, result: Err(refusal), .. } = message else { panic!("something else") };
            refused.push((to.slot, refusal.code));
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refused.sort_unstable_by_key(|(slot, _)| *slot);
    assert_eq!(refused, [(0, ErrorCode::Unavailable), (3, ErrorCode::Unavailable)]);
}

const THREADS: usize = 32;
const MESSAGES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_through_megabytes_delivers_all_of_them() {
    let cluster = cluster(2, &["--limits=off"]).await;
    let [ana, ben] = cluster.persons().await;
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        threads.push(cluster.group(&[&ana, &ben]).await);
    }
    let logs = Folder::new("sleeper").unwrap();
    let mut sleeper = cluster.process(&logs, "sleeper", &[]);
    let address = sleeper.address().to_string();
    let mut reader = live(&address, &ben).await;
    sleeper.freeze();
    let text = "\u{1F525}".repeat(4_000);
    let mut connection = cluster.world.pool.acquire().await.unwrap();
    for thread in &threads {
        for _ in 0..MESSAGES / 50 {
            let requests: Vec<_> = (0..50).map(|_| request(ana.id, *thread, &text)).collect();
            append(&mut connection, &requests).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    sleeper.thaw();
    let url = format!("http://{address}");
    // It has read nothing for longer than it may, and says so before it has caught up.
    let (status, ready) = get(&cluster.http, &format!("{url}/readyz")).await;
    assert_eq!(status, 503, "{ready}");
    // As they come, so that nothing is kept.
    let mut next: HashMap<String, usize> = threads.iter().map(|thread| (thread.to_string(), 2)).collect();
    let mut left = THREADS * MESSAGES;
    while left > 0 {
        let update = reader.until(|json| json["up"] == "message.created").await.json;
        let next = next.get_mut(update["s"].as_str().unwrap()).unwrap();
        assert_eq!(update["seq"], *next, "in order, nothing left out");
        *next += 1;
        left -= 1;
    }
    let mut fresh = live(&address, &ben).await;
    assert_eq!(fresh.say(threads[0], "awake").await["seq"], 2 + MESSAGES);
    for client in [&mut fresh, &mut reader] {
        assert_eq!(client.update(&threads[0].to_string()).await.json["seq"], 2 + MESSAGES);
    }
    let began = Instant::now();
    while get(&cluster.http, &format!("{url}/readyz")).await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "not ready again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.metric(&address, "haus_feed_repairs_total").await >= THREADS as f64);
    let resident = cluster.metric(&address, "haus_process_resident_bytes").await;
    assert!(resident < 300e6, "{resident}");
    assert_eq!(cluster.metric(&address, "haus_feed_holes").await, 0.0);
}

async fn live(address: &str, person: &Person) -> Client {
    let mut client = Client::connect(address).await;
    client.auth(&person.token).await;
    client
}

async fn get(http: &reqwest::Client, url: &str) -> (u16, String) {
    let answer = http.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
