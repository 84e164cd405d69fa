//! The worker side of the contract between master and worker, and the layout of the scoreboard.
