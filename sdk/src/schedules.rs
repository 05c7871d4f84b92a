//! Tasks that are created again and again.

use crate::client::{Client, fresh_request_id};
use crate::data::Schedule;
use crate::error::Error;
use crate::retry::Kind;
use crate::wire::class_to_wire;
use proto::v1;
use types::Class;

/// Schedules of the client's project.
#[derive(Clone, Copy, Debug)]
pub struct Schedules<'a> {
    pub(crate) client: &'a Client,
}

/// What is to be created, and when.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// Minute, hour, day of the month, month, day of the week, in UTC: `0 6 * * MON-FRI`.
    pub cron: &'a str,
    pub agent: &'a str,
    /// Name (may be empty) and text.
    pub inputs: Vec<(String, String)>,
    /// None: batch.
    pub class: Option<Class>,
    /// None: 5.
    pub priority: Option<u32>,
}

impl Schedules<'_> {
    /// Puts a schedule, in place of the one that had its name.
    pub async fn set(&self, name: &str, plan: Plan<'_>) -> Result<Schedule, Error> {
        let input = |(name, text): (String, String)| v1::Input { name, text };
        let message = v1::SetScheduleRequest {
            project: self.client.project.clone(),
            name: name.into(),
            cron: plan.cron.into(),
            agent: plan.agent.into(),
            inputs: plan.inputs.into_iter().map(input).collect(),
            class: plan.class.map_or(v1::TaskClass::Unspecified, class_to_wire).into(),
            priority: plan.priority,
            request_id: fresh_request_id()?,
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().set_schedule(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    pub async fn list(&self) -> Result<Vec<Schedule>, Error> {
        let message = v1::ListSchedulesRequest { project: self.client.project.clone() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().list_schedules(via.request(message)).await }
        });
        Ok(call.await?.schedules.into_iter().map(Schedule::from).collect())
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let message = v1::DeleteScheduleRequest {
            project: self.client.project.clone(),
            name: name.into(),
            request_id: fresh_request_id()?,
        };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().delete_schedule(via.request(message)).await }
        });
        call.await.map(|_| ())
    }
}
