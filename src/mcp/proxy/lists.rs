//! What there is: only what the session may call, and tools as they were pinned.

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, join_all};
use rmcp::model::{
    ClientRequest, CompleteRequest, CompleteRequestParams, CompleteResult, ErrorData, ListPromptsRequest,
    ListPromptsResult, ListResourceTemplatesRequest, ListResourceTemplatesResult, ListResourcesRequest,
    ListResourcesResult, PaginatedRequestParams, Prompt, Reference, Resource, ResourceTemplate, ResultType,
    ServerResult, Tool,
};

use super::names::{inner_name, inner_uri, outer_uri};
use super::reach::{Own, reach, reach_all, unreached, upstream_of_prompt};
use super::visit::{Visit, internal, refused};
use crate::domain::calls::Method;
use crate::domain::id::SessionId;
use crate::domain::upstreams::UpstreamName;
use crate::operations::catalogue::{self, VisibleTool};
use crate::operations::reaching::may_see;
use crate::proxy::connection::Connection;
use crate::proxy::failure::CallError;

/// The tools, under the names that they have for this client.
pub(super) async fn tools(visit: &Visit) -> Result<Vec<Tool>, ErrorData> {
    let Visit { app, caller, session_id, only, .. } = visit.clone();
    let find = move || catalogue::visible(&app, &caller, &session_id, only.as_ref());
    let found = tokio::task::spawn_blocking(find).await.map_err(|_| internal("the tools were not found"))?;
    let found = found.map_err(|error| refused(&error))?;
    let names = visit.app.with_tenant(&visit.caller.tenant, |tenant| {
        let name_of = |VisibleTool { upstream, tool, .. }: &VisibleTool| {
            let meant = tenant.upstreams.resolve(tool);
            let is_first = meant.is_some_and(|(first, its)| first == upstream && its == *tool);
            if visit.only.is_some() || is_first { tool.clone() } else { format!("{upstream}.{tool}") }
        };
        found.iter().map(name_of).collect::<Vec<_>>()
    });
    let names = names.map_err(|error| refused(&error))?;
    let tools = found.into_iter().zip(names).filter_map(|(found, name)| {
        let mut tool: Tool = serde_json::from_value(found.definition).ok()?;
        tool.name = name.into();
        Some(tool)
    });
    Ok(tools.collect())
}

/// The prompts.
pub(super) async fn prompts(
    visit: &Visit,
    page: Option<PaginatedRequestParams>,
    own: Own<'_>,
) -> Result<ListPromptsResult, ErrorData> {
    let request = ListPromptsRequest { params: page, ..ListPromptsRequest::default() };
    match page_of(visit, ClientRequest::ListPromptsRequest(request), own).await? {
        Page::One(page) => {
            let (seen, ServerResult::ListPromptsResult(mut list)) = *page else {
                return Err(something_else());
            };
            list.result_type.get_or_insert(ResultType::COMPLETE);
            list.prompts.retain(|prompt| seen.sees(prompt));
            Ok(list)
        }
        Page::All => {
            let all = of_all(visit, own, |it| Box::pin(it.prompts())).await?;
            Ok(ListPromptsResult::with_all_items(all))
        }
    }
}

/// The resources.
pub(super) async fn resources(
    visit: &Visit,
    page: Option<PaginatedRequestParams>,
    own: Own<'_>,
) -> Result<ListResourcesResult, ErrorData> {
    let request = ListResourcesRequest { params: page, ..ListResourcesRequest::default() };
    match page_of(visit, ClientRequest::ListResourcesRequest(request), own).await? {
        Page::One(page) => {
            let (seen, ServerResult::ListResourcesResult(mut list)) = *page else {
                return Err(something_else());
            };
            list.result_type.get_or_insert(ResultType::COMPLETE);
            list.resources.retain(|resource| seen.sees(resource));
            Ok(list)
        }
        Page::All => {
            let all = of_all(visit, own, |it| Box::pin(it.resources())).await?;
            Ok(ListResourcesResult::with_all_items(all))
        }
    }
}

/// The templates of resources.
pub(super) async fn templates(
    visit: &Visit,
    page: Option<PaginatedRequestParams>,
    own: Own<'_>,
) -> Result<ListResourceTemplatesResult, ErrorData> {
    let request = ListResourceTemplatesRequest { params: page, ..ListResourceTemplatesRequest::default() };
    match page_of(visit, ClientRequest::ListResourceTemplatesRequest(request), own).await? {
        Page::One(page) => {
            let (seen, ServerResult::ListResourceTemplatesResult(mut list)) = *page else {
                return Err(something_else());
            };
            list.result_type.get_or_insert(ResultType::COMPLETE);
            list.resource_templates.retain(|template| seen.sees(template));
            Ok(list)
        }
        Page::All => {
            let all = of_all(visit, own, |it| Box::pin(it.resource_templates())).await?;
            Ok(ListResourceTemplatesResult::with_all_items(all))
        }
    }
}

/// What can stand in an argument of a prompt or in a template.
pub(super) async fn complete(
    visit: &Visit,
    mut params: CompleteRequestParams,
    own: Own<'_>,
) -> Result<CompleteResult, ErrorData> {
    let unknown = || ErrorData::invalid_params("there is nothing of this name to complete", None);
    let (upstream, method, name) = match &params.r#ref {
        Reference::Prompt(prompt) => {
            let (upstream, name) = whose_prompt(visit, &prompt.name, own).await?.ok_or_else(unknown)?;
            (upstream, Method::Prompt, name)
        }
        Reference::Resource(resource) => {
            let (upstream, uri) = whose_resource(visit, &resource.uri).ok_or_else(unknown)?;
            (upstream, Method::Resource, uri)
        }
        _ => return Err(unknown()),
    };
    if !Seen::of(visit, &upstream)?.may_see(method, &name) {
        return Err(unknown());
    }
    match &mut params.r#ref {
        Reference::Prompt(prompt) => prompt.name = name,
        Reference::Resource(resource) => resource.uri = name,
        _ => {}
    }
    let connection = reach(visit, &upstream, own).await?;
    let request = ClientRequest::CompleteRequest(CompleteRequest::new(params));
    match connection.ask(request, visit.talk()).await.map_err(|error| unreached(&error))? {
        ServerResult::CompleteResult(mut result) => {
            result.result_type.get_or_insert(ResultType::COMPLETE);
            Ok(result)
        }
        _ => Err(something_else()),
    }
}

/// Whether the session may read a resource at all.
pub(super) fn may_see_resource(visit: &Visit, uri: &str) -> bool {
    let whose = whose_resource(visit, uri);
    whose.is_some_and(|(upstream, uri)| {
        Seen::of(visit, &upstream).is_ok_and(|seen| seen.may_see(Method::Resource, &uri))
    })
}

/// The upstream and its own address of a resource that a client names.
pub(super) fn whose_resource(visit: &Visit, uri: &str) -> Option<(UpstreamName, String)> {
    match &visit.only {
        Some(only) => Some((only.clone(), uri.to_owned())),
        None => inner_uri(uri),
    }
}

/// The upstream and its own name of a prompt that a client names.
pub(super) async fn whose_prompt(
    visit: &Visit,
    name: &str,
    own: Own<'_>,
) -> Result<Option<(UpstreamName, String)>, ErrorData> {
    if let Some(only) = &visit.only {
        return Ok(Some((only.clone(), name.to_owned())));
    }
    let is_known = |upstream: &UpstreamName| {
        let known = visit.app.with_tenant(&visit.caller.tenant, |it| it.upstreams.get(upstream).is_some());
        known.unwrap_or(false)
    };
    if let Some(named) = inner_name(name).filter(|(upstream, _)| is_known(upstream)) {
        return Ok(Some(named));
    }
    let found = upstream_of_prompt(visit, name, own).await?;
    Ok(found.map(|upstream| (upstream, name.to_owned())))
}

fn something_else() -> ErrorData {
    internal("the upstream answers something else")
}

/// A page of a list.
enum Page {
    /// Of the only upstream that the client speaks to.
    One(Box<(Seen, ServerResult)>),
    /// Of all.
    All,
}

async fn page_of(visit: &Visit, request: ClientRequest, own: Own<'_>) -> Result<Page, ErrorData> {
    let Some(only) = &visit.only else { return Ok(Page::All) };
    let seen = Seen::of(visit, only)?;
    let connection = reach(visit, only, own).await?;
    let page = connection.ask(request, visit.talk()).await.map_err(|error| unreached(&error))?;
    Ok(Page::One(Box::new((seen, page))))
}

async fn of_all<T: Listed>(
    visit: &Visit,
    own: Own<'_>,
    list: impl Fn(&Connection) -> BoxFuture<'_, Result<Vec<T>, CallError>>,
) -> Result<Vec<T>, ErrorData> {
    let reached = reach_all(visit, own).await?;
    let lists = join_all(reached.iter().map(|(_, connection)| list(connection))).await;
    let (mut all, mut taken) = (Vec::new(), BTreeSet::new());
    for (list, (upstream, _)) in lists.into_iter().zip(&reached) {
        let seen = Seen::of(visit, upstream)?;
        // One that gives no list has none: the others have.
        for item in list.unwrap_or_default() {
            if seen.sees(&item) {
                let is_first = taken.insert(item.key().to_owned());
                all.push(item.outer(upstream, is_first));
            }
        }
    }
    Ok(all)
}

/// What a session sees of an upstream.
struct Seen {
    visit: Visit,
    session_id: SessionId,
    upstream: UpstreamName,
}

impl Seen {
    fn of(visit: &Visit, upstream: &UpstreamName) -> Result<Self, ErrorData> {
        Ok(Self { visit: visit.clone(), session_id: visit.live_session()?, upstream: upstream.clone() })
    }

    fn may_see(&self, method: Method, name: &str) -> bool {
        let Visit { app, caller, .. } = &self.visit;
        may_see(app, &caller.tenant, &self.session_id, method, &self.upstream, name)
    }

    fn sees<T: Listed>(&self, item: &T) -> bool {
        self.may_see(T::METHOD, item.key())
    }
}

/// Something that is listed.
trait Listed {
    /// As what it is called.
    const METHOD: Method;

    /// Its upstream's name or address of it.
    fn key(&self) -> &str;

    /// As it is among those of all upstreams.
    fn outer(self, upstream: &UpstreamName, is_first: bool) -> Self;
}

impl Listed for Prompt {
    const METHOD: Method = Method::Prompt;

    fn key(&self) -> &str {
        &self.name
    }

    fn outer(mut self, upstream: &UpstreamName, is_first: bool) -> Self {
        if !is_first {
            self.name = format!("{upstream}.{}", self.name);
        }
        self
    }
}

impl Listed for Resource {
    const METHOD: Method = Method::Resource;

    fn key(&self) -> &str {
        &self.uri
    }

    fn outer(mut self, upstream: &UpstreamName, _: bool) -> Self {
        self.uri = outer_uri(upstream, &self.uri);
        self
    }
}

impl Listed for ResourceTemplate {
    const METHOD: Method = Method::Resource;

    fn key(&self) -> &str {
        &self.uri_template
    }

    fn outer(mut self, upstream: &UpstreamName, _: bool) -> Self {
        self.uri_template = outer_uri(upstream, &self.uri_template);
        self
    }
}
