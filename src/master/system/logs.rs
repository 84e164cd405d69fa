//! The opening of log files, which log writers report.

use std::collections::BTreeSet;

use super::System;
use crate::master::world::Source;
use crate::plan::LogFile;

impl System {
    pub(super) fn open_logs(&mut self, wanted: &BTreeSet<LogFile>) -> Result<Vec<LogFile>, String> {
        let opened = self.log_files.open(wanted);
        let opened = opened.map_err(|error| error.to_string())?;
        for file in &opened {
            let fd = self.log_files.report_fd(file);
            let watched = fd.map_or(Ok(()), |fd| self.watches.add_readable(fd, Source::LogFiles));
            if let Err(error) = watched {
                self.log_files.close(&opened);
                let target = &file.target;
                return Err(format!("cannot watch the opening of {target}: {error}"));
            }
        }
        Ok(opened)
    }

    pub(super) fn opened_logs(&mut self) -> Vec<(LogFile, Result<(), String>)> {
        let reports = self.log_files.reports().into_iter();
        let reports = reports.map(|(file, result)| (file, result.map_err(|e| e.to_string())));
        reports.collect()
    }
}
