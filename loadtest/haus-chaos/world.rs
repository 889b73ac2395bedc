//! The processes of one history: Postgres, Redis, two or three nodes, a fault proxy before each. Applies strikes and
//! records each fault once it is in force and its end before the mending begins.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::checker::record::{Fault, Record};
use crate::plan::Strike;
use crate::recorder::Recorder;
use crate::rig::RigError;
use crate::rig::node::{Node, Settings};
use crate::rig::postgres::Postgres;
use crate::rig::proxy::{FaultProxy, Faults};
use crate::rig::redis::Redis;
use crate::saboteur;
use crate::session::Door;
use crate::wire::Person;

const DATABASE: &str = "haus";
/// A drain of 1 s, and time to close.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// A slow path: each chunk waits so long, in small pieces.
const CRAWL: Faults = Faults { latency_ms: 15, jitter_ms: 25, slice_bytes: 700, black_hole: false };
const BLACK_HOLE: Faults = Faults { latency_ms: 0, jitter_ms: 0, slice_bytes: 0, black_hole: true };

/// All processes of one history. Nodes end first, then their couriers and the database (field order).
#[derive(Debug)]
pub struct World {
    nodes: Vec<Node>,
    proxies: Vec<FaultProxy>,
    redis: Redis,
    postgres: Postgres,
    settings: Settings,
}

impl World {
    /// Starts everything, with the schema migrated; logs go to `logs`. `extra` are further settings of the nodes.
    ///
    /// # Errors
    /// [`RigError`] when something does not come up.
    pub async fn start(
        program: &Path,
        nodes: usize,
        seed: u64,
        logs: &Path,
        extra: &[(String, String)],
    ) -> Result<Self, RigError> {
        let (postgres, redis) = tokio::task::block_in_place(|| {
            let postgres = Postgres::start(logs)?;
            postgres.create_database(DATABASE, None)?;
            Ok::<_, RigError>((postgres, Redis::start(logs)?))
        })?;
        let mut settings = Settings {
            program: program.to_owned(),
            database_url: postgres.application_url(DATABASE),
            owner_url: postgres.owner_url(DATABASE),
            redis_url: Some(redis.url()),
            logs: logs.to_owned(),
            extra: vec![
                ("HAUS_LIMITS".to_owned(), "off".to_owned()),
                ("HAUS_HEARTBEAT_MS".to_owned(), "2000".to_owned()),
                ("HAUS_DRAIN_MS".to_owned(), "1000".to_owned()),
                ("HAUS_ACCESS_TTL_MS".to_owned(), "86400000".to_owned()),
            ],
        };
        settings.extra.extend_from_slice(extra);
        let mut world = Self { nodes: Vec::new(), proxies: Vec::new(), redis, postgres, settings };
        tokio::task::block_in_place(|| world.settings.run(&["migrate"]).map(|_| ()))?;
        if let Some(statements) = saboteur::statements(extra) {
            tokio::task::block_in_place(|| world.postgres.query(DATABASE, statements))?;
        }
        for number in 1..=nodes {
            let node = tokio::task::block_in_place(|| Node::start(&world.settings, &format!("n{number}")))?;
            world.proxies.push(FaultProxy::start(node.address(), seed).await?);
            world.nodes.push(node);
        }
        Ok(world)
    }

    /// People with tokens, made by `haus seed`.
    ///
    /// # Errors
    /// [`RigError`] when the command fails or its file cannot be read.
    pub fn people(&self, count: usize) -> Result<Vec<Person>, RigError> {
        let file = self.settings.logs.join("people.jsonl");
        let path = file.to_string_lossy().into_owned();
        let count_text = count.to_string();
        self.settings.run(&["seed", "--people", &count_text, "--threads", "1", "--members", "2", "--out", &path])?;
        let text = std::fs::read_to_string(&file).map_err(RigError::io(format!("read {path}")))?;
        let people: Vec<Person> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if people.len() < count {
            let detail = format!("{} of {count} people in {path}", people.len());
            return Err(RigError::Failed { what: "haus seed".to_owned(), detail });
        }
        Ok(people)
    }

    /// How clients reach the nodes.
    pub fn doors(&self) -> Arc<[Door]> {
        let pairs = self.nodes.iter().zip(&self.proxies);
        let door = |(node, proxy): (&Node, &FaultProxy)| Door {
            name: node.name().to_owned(),
            direct: node.address(),
            proxied: proxy.address(),
        };
        pairs.map(door).collect()
    }

    /// Breaks something, waits, mends it.
    ///
    /// # Errors
    /// [`RigError`] when what was broken does not come up again.
    pub async fn strike(&mut self, strike: Strike, recorder: &Recorder) -> Result<(), RigError> {
        match strike {
            Strike::NodeKill { node, down_ms } => self.kill_node(node, 0, down_ms, recorder).await,
            Strike::NodeFreezeKill { node, frozen_ms, down_ms } => {
                self.kill_node(node, frozen_ms, down_ms, recorder).await
            }
            Strike::NodeFreeze { node, frozen_ms } => {
                let node = self.node(node);
                node.freeze();
                told(recorder, Fault::NodeStop, node.name(), frozen_ms).await;
                node.thaw();
                Ok(())
            }
            Strike::NodeDrain { node } => {
                let node = self.node(node);
                recorder.write(&Record::Fault {
                    kind: Fault::NodeStop,
                    node: node.name().to_owned(),
                    t_us: recorder.t_us(),
                });
                let status = tokio::task::block_in_place(|| node.stop(DRAIN_DEADLINE));
                told(recorder, Fault::NodeStop, node.name(), 0).await;
                if status.is_none_or(|status| !status.success()) {
                    let detail = format!("{status:?} after SIGTERM");
                    return Err(RigError::Failed { what: node.name().to_owned(), detail });
                }
                tokio::task::block_in_place(|| node.resume())
            }
            Strike::RedisKill { down_ms } => {
                self.redis.kill();
                told(recorder, Fault::RedisDown, "redis", down_ms).await;
                tokio::task::block_in_place(|| self.redis.resume())
            }
            Strike::RedisFreeze { frozen_ms } => {
                self.redis.freeze();
                told(recorder, Fault::RedisDown, "redis", frozen_ms).await;
                self.redis.thaw();
                Ok(())
            }
            Strike::PostgresKill { down_ms } => {
                tokio::task::block_in_place(|| self.postgres.kill());
                told(recorder, Fault::PostgresDown, "postgres", down_ms).await;
                tokio::task::block_in_place(|| self.postgres.resume())
            }
            Strike::PostgresCrash { down_ms } => {
                tokio::task::block_in_place(|| self.postgres.crash());
                told(recorder, Fault::PostgresDown, "postgres", down_ms).await;
                tokio::task::block_in_place(|| self.postgres.resume())
            }
            Strike::CutSockets { node } => {
                let index = node % self.proxies.len();
                self.proxies[index].cut_all();
                told(recorder, Fault::SocketsCut, self.nodes[index].name(), 0).await;
                Ok(())
            }
            Strike::BlackHole { node, for_ms } => self.slow_path(node, BLACK_HOLE, for_ms, recorder).await,
            Strike::Crawl { node, for_ms } => self.slow_path(node, CRAWL, for_ms, recorder).await,
        }
    }

    async fn kill_node(
        &mut self,
        node: usize,
        frozen_ms: u64,
        down_ms: u64,
        recorder: &Recorder,
    ) -> Result<(), RigError> {
        let node = self.node(node);
        if frozen_ms > 0 {
            node.freeze();
            recorder.write(&Record::Fault {
                kind: Fault::NodeStop,
                node: node.name().to_owned(),
                t_us: recorder.t_us(),
            });
            tokio::time::sleep(Duration::from_millis(frozen_ms)).await;
        }
        node.kill();
        told(recorder, Fault::NodeKill, node.name(), down_ms).await;
        tokio::task::block_in_place(|| node.resume())
    }

    async fn slow_path(
        &mut self,
        node: usize,
        faults: Faults,
        for_ms: u64,
        recorder: &Recorder,
    ) -> Result<(), RigError> {
        let index = node % self.proxies.len();
        self.proxies[index].set(faults);
        told(recorder, Fault::BlackHole, self.nodes[index].name(), for_ms).await;
        self.proxies[index].set(Faults::default());
        Ok(())
    }

    fn node(&mut self, number: usize) -> &mut Node {
        let index = number % self.nodes.len();
        &mut self.nodes[index]
    }

    /// Which nodes ended by themselves.
    pub fn fallen(&mut self) -> Vec<String> {
        let fallen = self.nodes.iter_mut().filter_map(|node| (!node.is_running()).then(|| node.name().to_owned()));
        fallen.collect()
    }
}

async fn told(recorder: &Recorder, kind: Fault, node: &str, for_ms: u64) {
    recorder.write(&Record::Fault { kind, node: node.to_owned(), t_us: recorder.t_us() });
    tokio::time::sleep(Duration::from_millis(for_ms)).await;
    recorder.write(&Record::Heal { kind, node: node.to_owned(), t_us: recorder.t_us() });
}
