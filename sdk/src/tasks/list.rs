//! Lists of tasks, by page or as a stream of all.

use crate::client::Client;
use crate::data::{Page, Task};
use crate::error::Error;
use crate::retry::Kind;
use futures::stream::{self, Stream, TryStreamExt};
use proto::v1;

/// A list to be read.
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `page` or `all`"]
pub struct ListTasks<'a> {
    client: &'a Client,
    message: v1::ListTasksRequest,
}

impl<'a> ListTasks<'a> {
    pub(super) fn new(client: &'a Client) -> ListTasks<'a> {
        let message = v1::ListTasksRequest { project: client.project.clone(), ..Default::default() };
        ListTasks { client, message }
    }

    /// Terms joined by AND: `state=RUNNING`, `agent=reader`, `label.team=x`, `parent=t_...`, `class=batch`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.message.filter = filter.into();
        self
    }

    /// Tasks in one page; the cluster's default when not set.
    pub fn page_size(mut self, tasks: u32) -> Self {
        self.message.page_size = tasks;
        self
    }

    /// Answers from the asked node's own state, maybe old.
    pub fn allow_stale(mut self) -> Self {
        self.message.allow_stale = true;
        self
    }

    /// The first page, or the one that a token leads to.
    pub async fn page(&self, token: Option<&str>) -> Result<Page<Task>, Error> {
        let mut message = self.message.clone();
        message.page_token = token.unwrap_or_default().to_string();
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.tasks().list_tasks(via.request(message)).await }
        });
        let answer = call.await?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: answer.tasks.into_iter().map(Task::from).collect(), next_page_token: next })
    }

    /// Every task, page after page as they are taken.
    pub fn all(self) -> impl Stream<Item = Result<Task, Error>> + Unpin + Send + 'a {
        let pages =
            stream::try_unfold((self, Some(None)), |(list, token): (Self, Option<Option<String>>)| async {
                let Some(token) = token else { return Ok(None) };
                let page = list.page(token.as_deref()).await?;
                let tasks = stream::iter(page.items.into_iter().map(Ok));
                Ok(Some((tasks, (list, page.next_page_token.map(Some)))))
            });
        Box::pin(pages.try_flatten())
    }
}
