//! The one place where clocks are read, and timers on the clock that counts.

use std::{io, os::fd::OwnedFd};

use jiff::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::decide::time::{BootTime, Now};

/// Both clocks, read now: `CLOCK_BOOTTIME`, which goes on in suspend (`std::time::Instant` does not), and the wall.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let nanos = boot.tv_sec.unsigned_abs() * 1_000_000_000 + boot.tv_nsec.unsigned_abs();
    Now { boot: BootTime::from_nanos(nanos), wall: Timestamp::now() }
}

/// Which boot of the host this is: readings of its elapsed time compare within one.
///
/// # Errors
/// If /proc can't be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// True if the system's time service says that the wall clock is synchronized. Who sets the clock by hand takes that back:
/// `adjtimex(2)`, STA_UNSYNC.
pub fn is_synchronized() -> bool {
    #[expect(unsafe_code, reason = "all zero is a value of this struct, and asks without changing anything")]
    let (state, status) = unsafe {
        let mut time = std::mem::zeroed::<libc::timex>();
        (libc::adjtimex(&raw mut time), time.status)
    };
    state >= 0 && state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}

/// A timer on `CLOCK_BOOTTIME`: exact to microseconds, and due at once after a suspend that slept through it.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
    set: Option<BootTime>,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        #[expect(
            unsafe_code,
            reason = "the descriptor is owned, so it is open and the same for the life of the AsyncFd"
        )]
        let fd = unsafe { AsyncFd::register(timer) }?;
        Ok(Self { fd, set: None })
    }

    /// Sets it, or with `None` stops it. Setting it to what it is set to costs nothing.
    ///
    /// # Errors
    /// Never on Linux for times that a clock can show; the kernel's own word otherwise.
    pub fn set(&mut self, at: Option<BootTime>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        // All zero would stop the timer instead of firing it at once.
        let nanos = at.map_or(0, |at| at.as_nanos().max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.set = at;
        Ok(())
    }

    /// Waits until it is due, for ever if it is not set. Cancel-safe.
    pub async fn due(&mut self) {
        loop {
            let Ok(mut guard) = self.fd.readable().await else { return std::future::pending().await };
            let mut count = [0; 8];
            match guard.try_io(|fd| rustix::io::read(fd.get_ref(), &mut count).map_err(io::Error::from)) {
                Ok(_) => {
                    self.set = None;
                    return;
                }
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_alarm_is_due_at_its_time_and_at_once_if_that_has_passed() {
        let mut alarm = Alarm::new().unwrap();
        let start = now().boot;
        alarm.set(Some(start + Duration::from_millis(20))).unwrap();
        alarm.due().await;
        assert!(now().boot >= start + Duration::from_millis(20));
        alarm.set(Some(start)).unwrap();
        alarm.due().await;
        alarm.set(Some(now().boot + Duration::from_secs(3600))).unwrap();
        alarm.set(None).unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(30), alarm.due()).await;
        assert!(waited.is_err(), "a stopped alarm is never due");
    }
}
