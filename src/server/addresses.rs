//! How many connections one client's address may hold.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Parts of the map, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// Connections by address, over all workers. Asked once a connection, and only where there is a limit.
#[derive(Debug, Default)]
pub struct Addresses {
    /// 0: no limit.
    most: u32,
    seeds: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

impl Addresses {
    /// At most so many connections from one address; 0: no limit. Of IPv6 the first 64 bits count, for a client has all
    /// that begin so.
    #[must_use]
    pub fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, ..Self::default() })
    }

    /// Whether there is a limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.most > 0
    }

    /// A place for a connection from here; `None`: the address has all that it may.
    #[must_use]
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut shard = self.shard(address);
        let held = shard.entry(address).or_insert(0);
        if *held >= self.most {
            return None;
        }
        *held += 1;
        drop(shard);
        Some(Place { addresses: Arc::clone(self), address })
    }

    fn shard(&self, address: IpAddr) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = self.seeds.hash_one(address) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address has all the connections that it may.
#[derive(Clone, Copy, Debug)]
pub struct Crowded;

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.address);
        if let Some(held) = shard.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_a_network_of_ipv6_counts_as_one() {
        let addresses = Addresses::new(2);
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let held = [take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap()];
        assert!(take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        let _six = [take("2001:db8::1").unwrap(), take("2001:db8::ffff:1").unwrap()];
        assert!(take("2001:db8::2").is_none() && take("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(take("192.0.2.1").is_some());
        let known: usize = addresses.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(known, 1, "who has none is forgotten");
    }
}
