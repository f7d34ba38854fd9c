//! Who hears of applied changes.

use parking_lot::RwLock;
use std::sync::{Arc, Weak};

/// Hears of applied changes, on the apply thread: it must not block, and it bounds by itself what
/// it keeps.
pub trait Subscriber<P>: Send + Sync + 'static {
    /// These were applied, in order, without a gap since the last call or [`Subscriber::jump`].
    fn publish(&self, publications: &[P]);

    /// A snapshot replaced the state: what led from the old to the new was not published.
    fn jump(&self);
}

/// The subscribers. One that is dropped hears no more.
pub(crate) struct Subscribers<P>(RwLock<Vec<Weak<dyn Subscriber<P>>>>);

impl<P: 'static> Subscribers<P> {
    pub fn new() -> Self {
        Subscribers(RwLock::new(Vec::new()))
    }

    pub fn add(&self, subscriber: &Arc<dyn Subscriber<P>>) {
        let mut all = self.0.write();
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(subscriber));
    }

    pub fn publish(&self, publications: &[P]) {
        for subscriber in self.0.read().iter().filter_map(Weak::upgrade) {
            subscriber.publish(publications);
        }
    }

    pub fn jump(&self) {
        for subscriber in self.0.read().iter().filter_map(Weak::upgrade) {
            subscriber.jump();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Ear(Mutex<Vec<u32>>);

    impl Subscriber<u32> for Ear {
        fn publish(&self, publications: &[u32]) {
            self.0.lock().extend_from_slice(publications);
        }
        fn jump(&self) {
            self.0.lock().push(0);
        }
    }

    #[test]
    fn who_is_gone_hears_no_more() {
        let subscribers = Subscribers::new();
        let (one, two) = (Arc::new(Ear::default()), Arc::new(Ear::default()));
        for ear in [&one, &two] {
            let ear: Arc<dyn Subscriber<u32>> = ear.clone();
            subscribers.add(&ear);
        }
        subscribers.publish(&[1, 2]);
        drop(two);
        subscribers.jump();
        subscribers.publish(&[3]);
        assert_eq!(*one.0.lock(), [1, 2, 0, 3]);
        let again: Arc<dyn Subscriber<u32>> = one.clone();
        subscribers.add(&again);
        assert_eq!(subscribers.0.read().len(), 2);
    }
}
