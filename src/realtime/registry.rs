//! Who is connected here: sessions by profile, for limits and revocation. A `dashmap`, off the fan-out path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use uuid::Uuid;

use super::inbox::SessionAddr;

/// One session.
#[derive(Debug, Clone, Copy)]
struct Registered {
    addr: SessionAddr,
    /// The signed-in session (`sid`) this socket belongs to; several sockets may share one.
    session_id: Uuid,
    /// Which was live first; 0 while `auth` is being answered: a revocation finds it, and it counts for nothing.
    place: u64,
}

/// A session's entry in the registry, as long as it lives. Whoever answers `auth` holds it, then the session: whatever
/// ends either takes the entry with it.
pub struct Registration {
    registry: Arc<Registry>,
    profile_id: Uuid,
    addr: SessionAddr,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.remove(self.profile_id, self.addr);
    }
}

/// Sessions of this node.
#[derive(Default)]
pub struct Registry {
    by_profile: DashMap<Uuid, Vec<Registered>>,
    places: AtomicU64,
}

impl Registry {
    /// Adds a session whose `auth` is being answered.
    pub fn add(self: &Arc<Self>, profile_id: Uuid, session_id: Uuid, addr: SessionAddr) -> Registration {
        let mut sessions = self.by_profile.entry(profile_id).or_insert_with(|| Vec::with_capacity(1));
        sessions.push(Registered { addr, session_id, place: 0 });
        Registration { registry: self.clone(), profile_id, addr }
    }

    /// The session is live. Returns the oldest ones of the profile above `most`, which are to be closed (4409).
    pub fn settle(&self, registration: &Registration, most: usize) -> Vec<SessionAddr> {
        let Some(mut sessions) = self.by_profile.get_mut(&registration.profile_id) else { return Vec::new() };
        let place = self.places.fetch_add(1, Ordering::Relaxed) + 1;
        sessions.iter_mut().filter(|session| session.addr == registration.addr).for_each(|own| own.place = place);
        let mut live: Vec<&Registered> = sessions.iter().filter(|session| session.place > 0).collect();
        let above = live.len().saturating_sub(most.max(1));
        if above > 0 {
            live.sort_unstable_by_key(|session| session.place);
        }
        live[..above].iter().map(|old| old.addr).collect()
    }

    fn remove(&self, profile_id: Uuid, addr: SessionAddr) {
        if let Some(mut sessions) = self.by_profile.get_mut(&profile_id) {
            sessions.retain(|session| session.addr != addr);
        }
        self.by_profile.remove_if(&profile_id, |_, sessions| sessions.is_empty());
    }

    /// Sessions here, those being authenticated included.
    pub fn len(&self) -> usize {
        self.by_profile.iter().map(|sessions| sessions.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_profile.is_empty()
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
    use super::Registry;
    use crate::realtime::inbox::SessionAddr;
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn the_oldest_goes_first_and_empty_profiles_are_forgotten() {
        let registry = Arc::new(Registry::default());
        let (profile, session_id) = (Uuid::now_v7(), Uuid::now_v7());
        let at = |slot| SessionAddr { worker: 0, slot, generation: 0 };
        let one = registry.add(profile, session_id, at(1));
        let ghost = registry.add(profile, session_id, at(9));
        assert!(registry.settle(&one, 2).is_empty());
        let two = registry.add(profile, Uuid::now_v7(), at(2));
        assert!(registry.settle(&two, 2).is_empty(), "one that is not live yet counts for nothing");
        let three = registry.add(profile, session_id, at(3));
        assert_eq!(registry.settle(&three, 2), [at(1)]);
        assert_eq!(registry.of(profile, Some(session_id)), [at(1), at(9), at(3)], "a revocation finds all of them");
        drop((one, ghost));
        assert_eq!(registry.of(profile, None), [at(2), at(3)]);
        drop((two, three));
        assert!(registry.is_empty());
    }
}
