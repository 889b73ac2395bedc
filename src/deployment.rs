//! Who we are beside others on the same Redis: the deployment (an id made once, in its database) and the epoch of its
//! history. Every name there begins with both, so that neither another deployment nor a past that was lost is heard.

use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

/// The deployment and its present epoch, shared by all that name something outside this process.
#[derive(Debug)]
pub struct Deployment {
    id: Uuid,
    epoch: watch::Sender<Uuid>,
}

impl Deployment {
    pub fn new(id: Uuid, epoch: Uuid) -> Arc<Self> {
        Arc::new(Self { id, epoch: watch::Sender::new(epoch) })
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn epoch(&self) -> Uuid {
        *self.epoch.borrow()
    }

    /// The epoch as the database has it; whoever watches hears of a new one.
    pub fn keep_epoch(&self, epoch: Uuid) {
        self.epoch.send_if_modified(|held| std::mem::replace(held, epoch) != epoch);
    }

    /// Changes of the epoch from now on.
    pub fn epochs(&self) -> watch::Receiver<Uuid> {
        self.epoch.subscribe()
    }

    /// What every name in Redis begins with in the present epoch: `haus:<deployment>:<epoch>:`.
    pub fn prefix(&self) -> String {
        self.prefix_in(self.epoch())
    }

    /// The same in a given epoch.
    pub fn prefix_in(&self, epoch: Uuid) -> String {
        format!("haus:{}:{}:", self.id.simple(), epoch.simple())
    }
}

#[cfg(test)]
mod tests {
    use super::Deployment;
    use uuid::Uuid;

    #[test]
    fn names_differ_by_deployment_and_by_epoch() {
        let (id, epoch) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let deployment = Deployment::new(id, epoch);
        let before = deployment.prefix();
        let mut heard = deployment.epochs();
        deployment.keep_epoch(epoch);
        assert!(heard.has_changed().is_ok_and(|changed| !changed), "the same epoch is no change");
        deployment.keep_epoch(Uuid::from_u128(3));
        assert!(heard.has_changed().is_ok_and(|changed| changed));
        assert_eq!(*heard.borrow_and_update(), deployment.epoch());
        assert_ne!(before, deployment.prefix());
        assert_eq!(before, deployment.prefix_in(epoch));
        assert_ne!(before, Deployment::new(Uuid::from_u128(4), epoch).prefix());
    }
}
