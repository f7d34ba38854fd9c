//! Which deliberate bug is in force, if any: so that tests and the simulator are proved to be able
//! to fail.
//!
//! Invariant: without the feature `canary` a [`Canary`] is empty and never sings.

use core::marker::PhantomData;

/// Which bug of `B` is in force, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Canary<B>(#[cfg(feature = "canary")] Option<B>, PhantomData<B>);

impl<B> Canary<B> {
    /// No bug.
    pub const NONE: Canary<B> = Canary(
        #[cfg(feature = "canary")]
        None,
        PhantomData,
    );
}

impl<B> Default for Canary<B> {
    fn default() -> Self {
        Canary::NONE
    }
}

impl<B: Copy + PartialEq> Canary<B> {
    /// This bug.
    #[cfg(feature = "canary")]
    pub const fn of(bug: B) -> Canary<B> {
        Canary(Some(bug), PhantomData)
    }

    /// Whether this bug is in force.
    #[cfg(feature = "canary")]
    pub fn sings(self, bug: B) -> bool {
        self.0 == Some(bug)
    }

    /// Whether this bug is in force: it cannot be.
    #[cfg(not(feature = "canary"))]
    #[inline(always)]
    pub fn sings(self, _bug: B) -> bool {
        false
    }
}
