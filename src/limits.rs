//! Limits per address.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;

/// Counts sockets by address.
#[derive(Default)]
pub struct Addresses {
    counts: DashMap<IpAddr, u32>,
}

/// One socket of an address, as long as it lives.
pub struct AddressGuard {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more socket, unless the address holds `most` already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressGuard> {
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(count);
        Some(AddressGuard { addresses: self.clone(), address })
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        if let Some(mut count) = self.addresses.counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
        }
        self.addresses.counts.remove_if(&self.address, |_, count| *count == 0);
    }
}
