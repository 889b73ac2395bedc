//! Both drivers of the courier under one contract suite, and what only Redis can do to a node: die, hang, cut it off.

mod contract;
mod faults;
mod nodes;
mod strangers;

pub use nodes::Member;
use nodes::{Network, Nodes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_process_keeps_the_contract() {
    contract::all(|| Nodes::start(&Network::InProcess, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_contract() {
    let redis = nodes::Server::start();
    let network = Network::redis(redis.url());
    contract::all(|| Nodes::start(&network, 3)).await;
}
