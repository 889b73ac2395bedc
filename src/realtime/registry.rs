//! Who is connected here: sessions by profile, for limits and revocation. A `dashmap`, off the fan-out path.

use dashmap::DashMap;
use uuid::Uuid;

use super::inbox::SessionAddr;

/// One live session.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub addr: SessionAddr,
    /// The signed-in session (`sid`) this socket belongs to; several sockets may share one.
    pub session_id: Uuid,
}

/// Sessions of this node.
#[derive(Default)]
pub struct Registry {
    by_profile: DashMap<Uuid, Vec<Registered>>,
}

impl Registry {
    /// Adds a session; returns the oldest ones of the profile above `most`, which are to be closed (4409).
    pub fn add(&self, profile_id: Uuid, session: Registered, most: usize) -> Vec<SessionAddr> {
        let mut sessions = self.by_profile.entry(profile_id).or_insert_with(|| Vec::with_capacity(1));
        sessions.push(session);
        let above = sessions.len().saturating_sub(most.max(1));
        sessions.drain(..above).map(|old| old.addr).collect()
    }

    pub fn remove(&self, profile_id: Uuid, addr: SessionAddr) {
        if let Some(mut sessions) = self.by_profile.get_mut(&profile_id) {
            sessions.retain(|session| session.addr != addr);
        }
        self.by_profile.remove_if(&profile_id, |_, sessions| sessions.is_empty());
    }

    /// Sockets of a profile, or of one signed-in session of it.
    pub fn of(&self, profile_id: Uuid, session_id: Option<Uuid>) -> Vec<SessionAddr> {
        self.by_profile.get(&profile_id).map_or_else(Vec::new, |sessions| {
            let wanted = |session: &&Registered| session_id.is_none_or(|id| id == session.session_id);
            sessions.iter().filter(wanted).map(|session| session.addr).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Registered, Registry};
    use crate::realtime::inbox::SessionAddr;
    use uuid::Uuid;

    #[test]
    fn the_oldest_goes_first_and_empty_profiles_are_forgotten() {
        let registry = Registry::default();
        let profile = Uuid::now_v7();
        let at = |slot| SessionAddr { worker: 0, slot, generation: 0 };
        let session_id = Uuid::now_v7();
        assert!(registry.add(profile, Registered { addr: at(1), session_id }, 2).is_empty());
        assert!(registry.add(profile, Registered { addr: at(2), session_id: Uuid::now_v7() }, 2).is_empty());
        assert_eq!(registry.add(profile, Registered { addr: at(3), session_id }, 2), [at(1)]);
        assert_eq!(registry.of(profile, Some(session_id)), [at(3)]);
        assert_eq!(registry.of(profile, None), [at(2), at(3)]);
        registry.remove(profile, at(2));
        registry.remove(profile, at(3));
        assert!(registry.by_profile.is_empty());
    }
}
