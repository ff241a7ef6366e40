"""What a specification runs and reads, as the site's image store has it."""

from intertie.broker.domain.planning import Image
from intertie.broker.domain.ports import Images
from intertie.common.errors import ImageNotReady
from intertie.common.spec import ClusterSpec, dataset_field, image_field


async def find_images(
    images: Images, spec: ClusterSpec, tenant: str, *, site: str
) -> dict[str, Image]:
    """Of groups and of data sets, by the names that the specification has for them; ImageNotReady
    for the first that is not there."""
    found: dict[str, Image] = {}
    asked = (
        *((each.environment.image, image_field(at)) for at, each in enumerate(spec.groups)),
        *((each.source, dataset_field(at)) for at, each in enumerate(spec.datasets)),
    )
    for name, field in asked:
        if name in found:
            continue
        image = await images.find(tenant, name)
        if image is None:
            raise ImageNotReady(name, site, field)
        found[name] = image
    return found
