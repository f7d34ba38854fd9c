//! The `quorate` program.

/// The state engine allocates a node of its skip lists at every write: measured, applying a put
/// costs a fifth less than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    quorate::main()
}
