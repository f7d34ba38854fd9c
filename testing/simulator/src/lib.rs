//! A whole cluster in one thread, in virtual time, with every fault in the book.
mod clock;
mod counters;
mod disk;
mod network;
mod queue;
mod trace;
