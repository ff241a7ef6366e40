"""What a specification runs, as the site's image store has it."""

from intertie.broker.domain.planning import Image
from intertie.broker.domain.ports import Images
from intertie.common.errors import ImageNotReady
from intertie.common.spec import ClusterSpec, image_field


async def find_images(
    images: Images, spec: ClusterSpec, tenant: str, *, site: str
) -> dict[str, Image]:
    """By the names that the specification has for them; ImageNotReady for the first that is not
    there."""
    found: dict[str, Image] = {}
    for position, group in enumerate(spec.groups):
        name = group.environment.image
        if name in found:
            continue
        image = await images.find(tenant, name)
        if image is None:
            raise ImageNotReady(name, site, image_field(position))
        found[name] = image
    return found
