//! The `quorate` program, built with these tests so that they never meet an older one.

fn main() -> std::process::ExitCode {
    quorate::main()
}
