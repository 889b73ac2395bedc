//! One history from its plan to its verdict: start the world and the people, run and strike, then quiet, settle, resume,
//! read everything back, record the final log, and check.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use crate::checker::record::{Positions, Record, StreamId};
use crate::checker::report::Report;
use crate::checker::{self};
use crate::crew::{self, Group, Person};
use crate::member::{Identity, Member, Status};
use crate::plan::Plan;
use crate::recorder::Recorder;
use crate::rest::Rest;
use crate::rig::rng::Rng;
use crate::rig::{Folder, RigError};
use crate::session::{self, Handle, Order};
use crate::world::World;

/// Time for every unanswered send to be answered once everything healed.
const QUIET_DEADLINE: Duration = Duration::from_secs(20);
/// Time for every session to reach the heads; above the node's slowest repair (its poll every 5 s).
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);
/// Time for people to be connected at the start, and for the last resume.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How far back the last listeners resume; below what a node answers with a snapshot.
const AUDIT_UPDATES: u64 = 200;
/// Client numbers of the last listeners.
const AUDITORS: u32 = 1000;

/// What one history came to.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// Faults that were in force, by name and count.
    pub struck: Vec<(&'static str, u32)>,
    pub path: PathBuf,
}

/// Runs and judges one history; the file and logs go to `out`.
///
/// # Errors
/// [`RigError`] when the world could not be kept up or the history not be read: no verdict then.
pub async fn run(plan: &Plan, program: &Path, out: &Path, extra: &[(String, String)]) -> Result<Outcome, RigError> {
    let logs = Folder::new("logs")?;
    let path = out.join(format!("{}.jsonl", plan.name));
    let recorder = Arc::new(Recorder::create(&path)?);
    recorder.write(&Record::Begin { seed: plan.seed, nodes: u32::try_from(plan.nodes).unwrap_or(0) });
    let mut world = World::start(program, plan.nodes, plan.seed, logs.path(), extra).await?;
    let played = play(plan, &mut world, &recorder).await;
    let fallen = world.fallen();
    drop(world);
    let struck = match played {
        Ok(struck) if fallen.is_empty() => struck,
        outcome => {
            keep_logs(logs.path(), out, &plan.name);
            let detail = format!("{fallen:?} ended by themselves");
            return Err(outcome.err().unwrap_or(RigError::Failed { what: "nodes".to_owned(), detail }));
        }
    };
    recorder.finish()?;
    let judged = checker::check_file(&path);
    let report = judged.map_err(|error| RigError::Failed { what: "check".to_owned(), detail: error.to_string() })?;
    if !report.is_clean() {
        keep_logs(logs.path(), out, &plan.name);
    }
    Ok(Outcome { report, struck, path })
}

async fn play(plan: &Plan, world: &mut World, recorder: &Arc<Recorder>) -> Result<Vec<(&'static str, u32)>, RigError> {
    let rest = Rest::new(world.doors(), Arc::clone(recorder))?;
    let people = tokio::task::block_in_place(|| world.people(plan.workload.people))?;
    let (groups, threads) = make_threads(plan, &people, &rest).await?;
    let (may_send, sending) = watch::channel(false);
    let (running, crew_runs) = watch::channel(true);
    let mut handles = Vec::new();
    let mut persons = Vec::new();
    for (client, person) in people.iter().enumerate() {
        let identity = Identity {
            client: u32::try_from(client).unwrap_or(u32::MAX),
            profile: person.profile_id,
            token: person.token.clone(),
            targets: threads.iter().map(|(thread, _)| *thread).collect(),
            workload: plan.workload.clone(),
            is_silent: false,
        };
        let member = Member::new(identity.clone(), Arc::clone(recorder), plan.seed, &Positions::new(), "");
        let handle = session::start(member, rest.clone(), client, sending.clone());
        persons.push(Person { identity, status: Arc::clone(&handle.status), orders: handle.orders.clone() });
        handles.push(handle);
    }
    wait(CONNECT_DEADLINE, || handles.iter().all(|handle| status(handle).is_live)).await;
    may_send.send_replace(true);
    let mut crew = crew::start(&persons, &groups, &rest, plan.seed, &crew_runs);
    let struck = strike(plan, world, &rest).await?;
    may_send.send_replace(false);
    running.send_replace(false);
    while crew.join_next().await.is_some() {}
    wait(QUIET_DEADLINE, || handles.iter().all(|handle| status(handle).unanswered == 0)).await;
    settle(&rest, &persons, &threads, &handles, recorder).await?;
    resume(plan, &rest, &persons, &threads, handles, recorder).await;
    read_all(&rest, &persons, &threads).await;
    for node in 0..plan.nodes {
        let count = rest.repairs(node).await;
        recorder.write(&Record::Repairs { node: format!("n{}", node + 1), count });
    }
    for (thread, owner) in &threads {
        rest.record_log(&persons[*owner].identity.token, *thread).await?;
    }
    Ok(struck)
}

type Owned = Vec<(Uuid, usize)>;

/// GROUP threads with seeded members and DIRECT threads between neighbours; each with somebody who never leaves.
async fn make_threads(
    plan: &Plan,
    people: &[crate::wire::Person],
    rest: &Rest,
) -> Result<(Vec<Group>, Owned), RigError> {
    let (mut groups, mut threads) = (Vec::new(), Vec::new());
    let mut rng = Rng::new(plan.seed, 2);
    for number in 0..plan.workload.groups {
        let owner = number % people.len();
        let mut members = vec![owner];
        while members.len() < plan.workload.group_members.min(people.len()) {
            let next = usize::try_from(rng.below(people.len() as u64)).unwrap_or(0);
            if !members.contains(&next) {
                members.push(next);
            }
        }
        let thread = make_thread(rest, people, "GROUP", &members).await?;
        threads.push((thread, owner));
        groups.push(Group { thread, owner, members });
    }
    for number in 0..plan.workload.directs.min(people.len() / 2) {
        let pair = [number * 2, number * 2 + 1];
        threads.push((make_thread(rest, people, "DIRECT", &pair).await?, pair[0]));
    }
    Ok((groups, threads))
}

async fn make_thread(
    rest: &Rest,
    people: &[crate::wire::Person],
    kind: &str,
    members: &[usize],
) -> Result<Uuid, RigError> {
    let profiles: Vec<Uuid> = members.iter().map(|member| people[*member].profile_id).collect();
    let thread = rest.make_thread(&people[members[0]].token, kind, &profiles[1..]).await?;
    rest.recorder.write(&Record::Thread { thread, members: profiles });
    Ok(thread)
}

/// Strikes one after the other until time is up, then leaves the rest of the time in peace.
async fn strike(plan: &Plan, world: &mut World, rest: &Rest) -> Result<Vec<(&'static str, u32)>, RigError> {
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let mut struck: Vec<(&'static str, u32)> = Vec::new();
    for ((pause_ms, strike), number) in plan.strikes.iter().cycle().zip(0..) {
        let left = end.saturating_duration_since(Instant::now());
        let pause = Duration::from_millis(*pause_ms);
        if left < pause * 2 {
            break;
        }
        tokio::time::sleep(pause).await;
        // A kill takes the node's counters with it.
        let node = number % plan.nodes;
        let count = rest.repairs(node).await;
        rest.recorder.write(&Record::Repairs { node: format!("n{}", node + 1), count });
        world.strike(*strike, &rest.recorder).await?;
        match struck.iter_mut().find(|(name, _)| *name == strike.name()) {
            Some((_, count)) => *count += 1,
            None => struck.push((strike.name(), 1)),
        }
    }
    tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    Ok(struck)
}

/// Waits until every session reached the heads of its threads by itself, then records where each stands.
async fn settle(
    rest: &Rest,
    persons: &[Person],
    threads: &Owned,
    handles: &[Handle],
    recorder: &Recorder,
) -> Result<(), RigError> {
    let mut heads = Vec::new();
    for (thread, owner) in threads {
        heads.push((*thread, rest.head(&persons[*owner].identity.token, *thread).await?));
    }
    let at_head = |status: &Status| {
        let reached =
            |(thread, head): &(Uuid, u64)| status.mirror.at(StreamId::Thread(*thread)).is_none_or(|at| at >= *head);
        status.is_live && heads.iter().all(reached)
    };
    wait(SETTLE_DEADLINE, || handles.iter().all(|handle| at_head(&status(handle)))).await;
    for handle in handles {
        recorder.write(&Record::Settled { client: handle.client });
    }
    Ok(())
}

/// Every client moves to another node and resumes; a second, silent client of each person resumes from further back.
async fn resume(
    plan: &Plan,
    rest: &Rest,
    persons: &[Person],
    threads: &Owned,
    mut handles: Vec<Handle>,
    recorder: &Arc<Recorder>,
) {
    let (_quiet, sending) = watch::channel(false);
    for (index, person) in persons.iter().enumerate() {
        let Status { mirror, epoch, .. } = status(&handles[index]);
        let from: Positions = threads
            .iter()
            .filter_map(|(thread, _)| {
                let at = mirror.at(StreamId::Thread(*thread))?;
                Some((StreamId::Thread(*thread), at.saturating_sub(AUDIT_UPDATES).max(mirror.floor(thread))))
            })
            .collect();
        let identity =
            Identity { client: AUDITORS + person.identity.client, is_silent: true, ..person.identity.clone() };
        let auditor = Member::new(identity, Arc::clone(recorder), plan.seed, &from, &epoch);
        handles.push(session::start(auditor, rest.clone(), index + 1, sending.clone()));
        // The box is empty by now; a client that is stuck shows as a stall.
        let _ = person.orders.try_send(Order::Move);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let done = |status: &Status| status.is_live && status.fills == 0;
    wait(CONNECT_DEADLINE, || handles.iter().all(|handle| done(&status(handle)))).await;
    for handle in &handles {
        recorder.write(&Record::End { client: handle.client });
    }
}

/// Reads the whole history of every thread over REST, page by page, from all nodes in turn.
async fn read_all(rest: &Rest, persons: &[Person], threads: &Owned) {
    for (thread, owner) in threads {
        let identity = &persons[*owner].identity;
        let (mut before, mut node) = (None, 0);
        loop {
            let oldest = rest.read(node, identity.client, &identity.token, *thread, before).await;
            node += 1;
            match oldest {
                Some(no) if no > 1 => before = Some(no),
                _ => break,
            }
        }
    }
}

fn status(handle: &Handle) -> Status {
    handle.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn wait(deadline: Duration, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn keep_logs(logs: &Path, out: &Path, name: &str) {
    let kept = out.join(format!("{name}-logs"));
    drop(std::fs::create_dir_all(&kept));
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    for file in files.filter(|file| file.path().extension().is_some_and(|end| end == "log")) {
        drop(std::fs::copy(file.path(), kept.join(file.file_name())));
    }
}
