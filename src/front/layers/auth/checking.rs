//! Comparisons of passwords on threads of their own: two at a time, and so many wait. Requests with the same credentials share one.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::Job;
use super::known::Key;

/// Threads of one worker of the front.
const THREADS: usize = 2;
/// So many comparisons run and wait.
const ROOM: usize = 64;
/// So many of them for clients with one address.
const OF_ONE: usize = 8;
/// How much less of the processor the threads get when it is scarce: requests that need no comparison come first.
const NICE: i32 = 10;

/// A request, by its key.
pub type Ticket = u64;

/// There are too many comparisons.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The comparisons that run and wait.
#[derive(Debug)]
pub struct Checking {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    verdicts: Receiver<(Key, bool)>,
    tell: Sender<(Key, bool)>,
    /// A byte comes for each verdict.
    ours: UnixStream,
    theirs: Arc<UnixStream>,
    running: HashMap<Key, Asking>,
    threads: usize,
}

/// Who waits for a comparison.
#[derive(Debug)]
struct Asking {
    tickets: Vec<Ticket>,
    client: Option<IpAddr>,
}

impl Checking {
    /// Nothing runs.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let (jobs, queue) = channel();
        let (tell, verdicts) = channel();
        Ok(Self {
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            verdicts,
            tell,
            ours,
            theirs: Arc::new(theirs),
            running: HashMap::new(),
            threads: 0,
        })
    }

    /// What can be read when there is something to [`Checking::take`].
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Has a comparison made for a request of this client.
    ///
    /// # Errors
    /// There are too many.
    pub fn ask(&mut self, ticket: Ticket, job: &Job, client: Option<IpAddr>) -> Result<(), Full> {
        if let Some(asking) = self.running.get_mut(&job.key) {
            asking.tickets.push(ticket);
            return Ok(());
        }
        let same = self.running.values();
        let same = same.filter(|asking| client.is_some() && asking.client == client);
        if self.running.len() >= ROOM || same.count() >= OF_ONE {
            return Err(Full);
        }
        self.begin_threads()?;
        self.jobs.send(job.clone()).map_err(|_| Full)?;
        let tickets = vec![ticket];
        self.running.insert(job.key, Asking { tickets, client });
        Ok(())
    }

    /// A request has no use for its comparison any more.
    pub fn left(&mut self, ticket: Ticket) {
        for asking in self.running.values_mut() {
            asking.tickets.retain(|known| *known != ticket);
        }
    }

    /// A comparison that is over: whether the password was right, and the requests that wait for it.
    pub fn take(&mut self) -> Option<(Key, bool, Vec<Ticket>)> {
        let _ = (&self.ours).read(&mut [0; ROOM]);
        let (key, is_right) = self.verdicts.try_recv().ok()?;
        let asking = self.running.remove(&key);
        let tickets = asking.map(|asking| asking.tickets).unwrap_or_default();
        Some((key, is_right, tickets))
    }

    fn begin_threads(&mut self) -> Result<(), Full> {
        while self.threads < THREADS {
            let (queue, tell) = (self.queue.clone(), self.tell.clone());
            let wake = self.theirs.clone();
            let begun = thread::Builder::new()
                .name("passwords".into())
                .spawn(move || work(&queue, &tell, &wake));
            match begun {
                Ok(_) => self.threads += 1,
                Err(_) if self.threads > 0 => break,
                Err(error) => {
                    log::error!(
                        "could not start a thread that compares passwords: {error}; answering 503"
                    );
                    return Err(Full);
                }
            }
        }
        Ok(())
    }
}

/// Makes comparisons until nobody is there who could ask for one.
fn work(queue: &Mutex<Receiver<Job>>, tell: &Sender<(Key, bool)>, wake: &UnixStream) {
    // Of this thread only, as Linux counts.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        if tell.send((job.key, job.run())).is_err() {
            return;
        }
        // Full means that it is awake already.
        let _ = (&*wake).write(&[0]);
    }
}

#[cfg(test)]
mod tests {
    use preforkd_worker::layers::User;
    use zeroize::Zeroizing;

    use super::super::known::Secret;
    use super::super::{Credentials, Users};
    use super::*;

    struct Asked {
        users: Users,
        secret: Secret,
        checking: Checking,
    }

    fn asked() -> Asked {
        let hash = bcrypt::hash_with_salt("right", 4, [1; 16]).unwrap();
        let user = User {
            name: "ann".into(),
            hash: hash.to_string(),
        };
        Asked {
            users: Users::new("x", &[user]),
            secret: Secret::new().unwrap(),
            checking: Checking::new().unwrap(),
        }
    }

    impl Asked {
        fn ask(&mut self, ticket: Ticket, password: &str, client: u8) -> Result<(), Full> {
            let credentials = Credentials {
                user: "ann".into(),
                password: Zeroizing::new(password.into()),
            };
            let job = self.users.job(&credentials, &self.secret);
            let client = (client > 0).then(|| IpAddr::from([192, 0, 2, client]));
            self.checking.ask(ticket, &job, client)
        }

        /// The next verdict, when it has come.
        fn wait(&mut self) -> (bool, Vec<Ticket>) {
            loop {
                if let Some((_, is_right, tickets)) = self.checking.take() {
                    return (is_right, tickets);
                }
                let ours = self.checking.ours.try_clone().unwrap();
                let mut fds = [rustix::event::PollFd::new(
                    &ours,
                    rustix::event::PollFlags::IN,
                )];
                rustix::event::poll(&mut fds, None).unwrap();
            }
        }
    }

    #[test]
    fn requests_with_the_same_password_share_a_comparison() {
        let mut asked = asked();
        for ticket in 1..=3 {
            asked.ask(ticket, "right", 1).unwrap();
        }
        asked.checking.left(2);
        assert_eq!(asked.wait(), (true, vec![1, 3]));
        asked.ask(4, "wrong", 1).unwrap();
        asked.checking.left(4);
        assert_eq!(asked.wait(), (false, vec![]));
        assert!(asked.checking.running.is_empty());
    }

    #[test]
    fn one_client_does_not_take_all_the_room_and_there_is_an_end_of_it() {
        let mut asked = asked();
        // None is taken out meanwhile, so that all count.
        for number in 0..OF_ONE {
            asked.ask(number as u64, &format!("a{number}"), 1).unwrap();
        }
        assert_eq!(asked.ask(100, "one more", 1), Err(Full));
        asked.ask(101, "a1", 1).unwrap();
        for number in OF_ONE..ROOM {
            asked.ask(number as u64, &format!("b{number}"), 0).unwrap();
        }
        assert_eq!(asked.ask(200, "too many", 2), Err(Full));
        for _ in 0..ROOM {
            assert!(!asked.wait().0);
        }
        asked.ask(300, "right", 1).unwrap();
        assert_eq!(asked.wait(), (true, vec![300]));
    }
}
