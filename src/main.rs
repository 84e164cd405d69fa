//! The program `preforkd`.

fn main() -> std::process::ExitCode {
    preforkd::cli::run()
}
