"""The endpoints."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import AfterValidator

from framewake.errors import InputError
from framewake.media.naming import stem
from framewake.pipeline.drafts import draft_path
from framewake.service.creation import Creation
from framewake.service.desk import Desk
from framewake.service.fetch import Guarded
from framewake.service.files import file_answer
from framewake.service.formats import MEDIA, Format, Formats
from framewake.service.intake import BODY
from framewake.service.metrics import Figures
from framewake.service.refusals import Conflict, NoSuchVideo
from framewake.service.storage import CLIP, PREVIEW, STORY, THUMBNAIL
from framewake.service.stream import HEADERS, EventStream, Streams
from framewake.service.views import Deleted, ErrorBody, Video, VideoList, video

_ID = re.compile(r"video_[0-9a-f]{32}")


def _known_form(video_id: str) -> str:
    """An id as it may be; anything else is the id of no video.

    Raises: NotFound.
    """
    if not _ID.fullmatch(video_id):
        raise NoSuchVideo
    return video_id


VideoId = Annotated[str, Path(description="As POST /v1/videos gave it."), AfterValidator(_known_form)]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "Not understood.",
        401: "No valid API key.",
        403: "From a page of another site.",
        404: "No such video.",
        408: "The body came too slowly.",
        409: "Not in this state.",
        412: "Not the file that the request is about.",
        413: "Too many bytes or pixels.",
        415: "Neither JSON nor a form.",
        422: "A setting cannot be used; the message says why.",
        429: "The key's queue or rate is used up.",
        503: "The database does not answer.",
        507: "The disk is full.",
    }.items()
}
# File and media type of each variant.
VARIANTS = {
    "video": (CLIP, "video/mp4"),
    "thumbnail": (THUMBNAIL, "image/jpeg"),
    "preview": (PREVIEW, "image/png"),
    "story": (STORY, "application/json"),
    "draft": (CLIP, "video/mp4"),  # beside it, under its own name
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: ERRORS[status] for status in (401, 403, 503, *statuses)}


def make_routes(desk: Desk, fetcher: Guarded | None, callbacks: Guarded, *, figures: Figures) -> APIRouter:
    """Every endpoint over one desk."""
    router = APIRouter()
    _add_creation(router, desk, fetcher, callbacks)
    _add_reading(router, desk)
    _add_changing(router, desk)
    _add_files(router, desk)
    _add_state(router, desk, figures)
    return router


def _owner(request: Request) -> str:
    return request.scope["owner"]


def _add_creation(router: APIRouter, desk: Desk, fetcher: Guarded | None, callbacks: Guarded) -> None:
    creation = Creation(desk, fetcher, callbacks)

    @router.post(
        "/v1/videos",
        responses=_errors(400, 408, 413, 415, 422, 429, 507),
        openapi_extra={"requestBody": BODY},
        tags=["videos"],
    )
    async def create_video(
        request: Request,
        response: Response,
        *,
        idempotency_key: Annotated[  # read with the rest of the request
            str | None, Header(description="A random text: the same request sent again with it makes no second video.")
        ] = None,
    ) -> Video:
        """Put a video into the queue."""
        return await creation.create(request, response)

    _add_extension(router, desk, creation)


def _add_extension(router: APIRouter, desk: Desk, creation: Creation) -> None:
    responses = _errors(400, 404, 408, 409, 413, 415, 422, 429, 507)
    described = {"requestBody": BODY}

    @router.post("/v1/videos/{video_id}/extensions", responses=responses, openapi_extra=described, tags=["videos"])
    async def extend_video(request: Request, response: Response, video_id: VideoId) -> Video:
        """Go on where a completed video ends: a longer one, with its settings where the fields say nothing."""
        return await creation.extend(request, response, job=video_id)

    @router.post("/v1/videos/extensions", responses=responses, openapi_extra=described, tags=["videos"])
    async def extend_named_video(request: Request, response: Response) -> Video:
        """The same as OpenAI's client asks for it, with the id in `video`."""
        return await creation.extend(request, response, job=None)


def _add_reading(router: APIRouter, desk: Desk) -> None:
    streams = Streams()

    @router.get("/v1/videos", responses=_errors(404, 422), tags=["videos"])
    def list_videos(
        request: Request,
        after: Annotated[str | None, Query(), AfterValidator(_known_form)] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """A page of your videos, the newest first; `after` is the last id of the page before."""
        rows = desk.store.page(_owner(request), after=after, limit=limit + 1, order=order)
        shown = rows[:limit]
        data = [video(*pair) for pair in zip(shown, desk.store.positions(shown), strict=True)]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return VideoList(data=data, first_id=first, last_id=last, has_more=len(rows) > limit)

    @router.get("/v1/videos/{video_id}", responses=_errors(404, 422), tags=["videos"])
    def get_video(request: Request, video_id: VideoId) -> Video:
        """How far a video is."""
        return video(*desk.store.look(video_id, _owner(request)))

    @router.get(
        "/v1/videos/{video_id}/events",
        responses=_errors(404, 422, 429) | {200: {"content": {"text/event-stream": {}}, "description": "Events."}},
        response_class=StreamingResponse,
        tags=["videos"],
    )
    def video_events(request: Request, video_id: VideoId) -> Response:
        """Server-sent events: `status` with the video, `preview` with a data URL, and `end`."""
        desk.store.get(video_id, _owner(request))
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=HEADERS)
        return EventStream(desk, video_id, _owner(request), streams=streams)


def _add_changing(router: APIRouter, desk: Desk) -> None:
    @router.delete("/v1/videos/{video_id}", responses=_errors(404, 422), tags=["videos"])
    def delete_video(request: Request, video_id: VideoId) -> Deleted:
        """Cancel a video that has not ended: it stops within a step. One that has ended is removed."""
        row = desk.delete(video_id, _owner(request))
        return Deleted(id=video_id, deleted=row is None, status="deleted" if row is None else row.state)

    @router.post("/v1/videos/{video_id}/cancel", responses=_errors(404, 409, 422), tags=["videos"])
    def cancel_video(request: Request, video_id: VideoId) -> Video:
        """Stop a video that has not ended, within a step. One that has ended is left as it is."""
        return video(desk.cancel(video_id, _owner(request)), None)

    @router.post("/v1/videos/{video_id}/pause", responses=_errors(404, 409, 422), tags=["videos"])
    def pause_video(request: Request, video_id: VideoId) -> Video:
        """Pause a video: one that waits at once, one that runs with a draft behind its next step."""
        return video(desk.store.pause(video_id, _owner(request)), None)

    @router.post("/v1/videos/{video_id}/resume", responses=_errors(404, 409, 422), tags=["videos"])
    def resume_video(request: Request, video_id: VideoId) -> Video:
        """Let a paused video go on, at its old place in the queue; one that is to pause does not."""
        row = desk.store.go_on(video_id, _owner(request))
        return video(row, desk.store.position(row))

    @router.post("/v1/videos/{video_id}/retry", responses=_errors(404, 409, 422), tags=["videos"])
    def retry_video(request: Request, video_id: VideoId) -> Video:
        """Put a failed or cancelled video back into the queue."""
        desk.store.get(video_id, _owner(request))
        row = desk.store.retry(video_id)
        return video(row, desk.store.position(row))


def _add_files(router: APIRouter, desk: Desk) -> None:
    formats = Formats(desk.storage)
    media_types = dict.fromkeys([*MEDIA.values(), *(media for _, media in VARIANTS.values())])
    kinds = {media: {"schema": {"type": "string", "format": "binary"}} for media in media_types}
    described: dict[int | str, dict[str, Any]] = {
        200: {"content": kinds, "description": "The file."},
        206: {"content": kinds, "description": "Part."},
        304: {"description": "You have it."},
    }
    described[416] = {"model": ErrorBody, "description": "The file has no such part."}
    described[400] = {"model": ErrorBody, "description": "The range is not understood."}

    @router.get(
        "/v1/videos/{video_id}/content",
        responses=_errors(404, 409, 412, 422, 429, 507) | described,
        response_class=FileResponse,
        tags=["videos"],
    )
    def video_content(
        request: Request,
        video_id: VideoId,
        variant: Literal["video", "thumbnail", "preview", "story", "draft"] = "video",
        format: Annotated[Format, Query(description="Of the video itself.")] = "mp4",
    ) -> Response:
        """The clip (ranges are understood), its thumbnail, its newest draft, or the newest preview of a running one.

        The story is JSON: runs with their devices, drafts, pauses, and seconds by stage. GIF and WebP are made when
        they are first asked for, with the longer side at most 640 px.
        """
        row = desk.store.get(video_id, _owner(request))
        name, media = VARIANTS[variant]
        path = desk.storage.job(video_id) / name
        if variant == "draft":
            if row.drafted is None:
                raise Conflict(f"the video is {row.state}: there is no draft.")
            path = draft_path(path, row.drafted)
        elif variant not in ("preview", "story") and row.state != "completed":
            raise Conflict(f"the video is {row.state}: there is no file yet.")
        made = video(row, None)
        if format != "mp4":
            if variant != "video":
                raise InputError(f"format {format} is for the video itself: leave variant out.", about="format")
            path, media = formats.file(path.parent, format), MEDIA[format]
        called = stem(made.prompt, made.seed) + path.suffix
        return file_answer(request.headers, path, media=media, name=called)


def _add_state(router: APIRouter, desk: Desk, figures: Figures) -> None:
    @router.get("/v1/models", responses=_errors(), tags=["server"])
    def list_models() -> dict[str, Any]:
        """The served checkpoint and the LoRA files that may be named with it."""
        settings = desk.checkpoint.settings
        model = {
            "id": desk.model,
            "object": "model",
            "created": 0,
            "owned_by": "framewake",
            "resolutions": list(settings.resolutions),
            "frames": settings.frames,
            "steps": settings.steps,
            "fps": settings.fps,
            "loras": desk.lora_names(),
        }
        return {"object": "list", "data": [model]}

    @router.get("/health", tags=["server"], responses={503: {"description": "No worker is alive."}})
    def health() -> JSONResponse:
        """Whether videos are being made: 503 without a living worker."""
        alive = desk.presence.alive()
        counts = {"workers": len(alive), "devices": desk.presence.device_count(alive), "jobs": desk.store.counts()}
        body = {"status": "ok" if alive else "no worker", **counts}
        return JSONResponse(body, status_code=200 if alive else 503)

    @router.get("/metrics", responses=_errors(), tags=["server"], response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)
