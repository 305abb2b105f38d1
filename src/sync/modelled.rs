//! The concurrent map as models see it: dashmap's locking and nothing of its insides.
//!
//! As in dashmap, keys are spread over shards by their hash, each shard is behind one lock for readers and writers, and
//! every guard holds its shard's lock until it is dropped.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Two shards are enough for keys that share a lock and keys that do not.
const SHARDS: usize = 2;

type Shard<K, V, S> = HashMap<K, V, S>;

/// Stands for `dashmap::DashMap`.
#[derive(Debug)]
pub(crate) struct ConcurrentMap<K, V, S> {
    shards: [RwLock<Shard<K, V, S>>; SHARDS],
    hasher: S,
}

impl<K: Hash + Eq + Copy, V, S: BuildHasher + Clone> ConcurrentMap<K, V, S> {
    pub(crate) fn with_hasher_and_shard_amount(hasher: S, _: usize) -> Self {
        let shard = |_| RwLock::new(HashMap::with_hasher(hasher.clone()));
        Self { shards: std::array::from_fn(shard), hasher }
    }

    pub(crate) fn with_capacity_and_hasher_and_shard_amount(_: usize, hasher: S, shards: usize) -> Self {
        Self::with_hasher_and_shard_amount(hasher, shards)
    }

    fn shard(&self, key: &K) -> &RwLock<Shard<K, V, S>> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }

    fn write(&self, key: &K) -> RwLockWriteGuard<'_, Shard<K, V, S>> {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &K) -> Option<Ref<'_, K, V, S>> {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.contains_key(key).then_some(Ref { shard, key: *key })
    }

    pub(crate) fn get_mut(&self, key: &K) -> Option<RefMut<'_, K, V, S>> {
        let shard = self.write(key);
        shard.contains_key(key).then_some(RefMut { shard, key: *key })
    }

    pub(crate) fn entry(&self, key: K) -> Entry<'_, K, V, S> {
        let locked = RefMut { shard: self.write(&key), key };
        if locked.shard.contains_key(&key) { Entry::Occupied(locked) } else { Entry::Vacant(locked) }
    }

    pub(crate) fn insert(&self, key: K, value: V) -> Option<V> {
        self.write(&key).insert(key, value)
    }

    pub(crate) fn remove_if(&self, key: &K, is_meant: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        let mut shard = self.write(key);
        shard.get(key).is_some_and(|value| is_meant(key, value)).then(|| shard.remove_entry(key))?
    }

    fn read_all(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Shard<K, V, S>>> {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read_all().all(|shard| shard.is_empty())
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Ref<'_, K, V, S>> {
        let keys: Vec<K> =
            self.read_all().flat_map(|shard| shard.keys().copied().collect::<Vec<_>>()).collect();
        keys.into_iter().filter_map(|key| self.get(&key))
    }
}

/// A value of the map, and its shard's lock for reading.
pub(crate) struct Ref<'a, K, V, S> {
    shard: RwLockReadGuard<'a, Shard<K, V, S>>,
    key: K,
}

impl<K: Hash + Eq, V, S: BuildHasher> Deref for Ref<'_, K, V, S> {
    type Target = V;

    fn deref(&self) -> &V {
        self.shard.get(&self.key).expect("the shard is locked")
    }
}

/// A value of the map, or the place for one, and its shard's lock for writing.
pub(crate) struct RefMut<'a, K, V, S> {
    shard: RwLockWriteGuard<'a, Shard<K, V, S>>,
    key: K,
}

impl<K: Hash + Eq, V, S: BuildHasher> Deref for RefMut<'_, K, V, S> {
    type Target = V;

    fn deref(&self) -> &V {
        self.shard.get(&self.key).expect("the shard is locked")
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> DerefMut for RefMut<'_, K, V, S> {
    fn deref_mut(&mut self) -> &mut V {
        self.shard.get_mut(&self.key).expect("the shard is locked")
    }
}

/// Stands for `dashmap::Entry`.
pub(crate) enum Entry<'a, K, V, S> {
    Occupied(RefMut<'a, K, V, S>),
    Vacant(RefMut<'a, K, V, S>),
}

impl<'a, K: Hash + Eq + Copy, V, S: BuildHasher> Entry<'a, K, V, S> {
    pub(crate) fn insert(self, value: V) -> RefMut<'a, K, V, S> {
        let (Self::Occupied(mut place) | Self::Vacant(mut place)) = self;
        place.shard.insert(place.key, value);
        place
    }

    pub(crate) fn or_default(self) -> RefMut<'a, K, V, S>
    where
        V: Default,
    {
        match self {
            Self::Occupied(place) => place,
            vacant @ Self::Vacant(_) => vacant.insert(V::default()),
        }
    }
}
