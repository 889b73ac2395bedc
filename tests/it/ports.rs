//! What a node gives to the routes of threads, without sockets: the true send batcher, and a list of what was published.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use haus::http::Ports;
use haus::limits::WorkRates;
use haus::messaging::batcher::{Batcher, CommitSink, Hold};
use haus::messaging::send::{Outcome, SendChecker, SendRequest};
use haus::messaging::{Publisher, Sender};
use haus::protocol::codes::Refusal;
use haus::protocol::types::SendOk;
use haus::updates::Update;
use sqlx::PgPool;
use tokio::sync::oneshot;

/// Updates in the order they were published.
#[derive(Default)]
pub struct Published(Mutex<Vec<Update>>);

impl Published {
    pub fn take(&self) -> Vec<Update> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Publisher for Published {
    fn publish(&self, updates: Vec<Update>) {
        self.0.lock().unwrap().extend(updates);
    }
}

impl CommitSink<oneshot::Sender<Outcome>> for Published {
    fn committed(
        &self,
        updates: Vec<Update>,
        answers: Vec<(oneshot::Sender<Outcome>, Outcome)>,
        _: &dyn Fn(uuid::Uuid) -> Option<Hold>,
    ) {
        self.publish(updates);
        for (asker, outcome) in answers {
            let _ = asker.send(outcome);
        }
    }
}

struct Batched(Arc<Batcher<oneshot::Sender<Outcome>>>);

impl Sender for Batched {
    fn send(&self, request: SendRequest) -> BoxFuture<'static, Result<SendOk, Refusal>> {
        let (asker, answer) = oneshot::channel();
        self.0.submit(request, asker);
        Box::pin(async move { answer.await.unwrap() })
    }
}

pub fn ports(pool: PgPool) -> (Ports, Arc<Published>) {
    let published = Arc::new(Published::default());
    let ports = Ports {
        sender: Arc::new(Batched(Batcher::start(pool, published.clone()))),
        checker: Arc::new(SendChecker::new(&[9; 32])),
        publisher: published.clone(),
        epoch: Arc::new(|| "epoch-1".to_owned()),
        work: Arc::new(WorkRates::new(true)),
    };
    (ports, published)
}
