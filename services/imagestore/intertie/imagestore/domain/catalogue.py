"""Which names point to which bytes: an index over everything that is published."""

from __future__ import annotations

from collections.abc import Iterable

from intertie.common.names import is_digest
from intertie.imagestore.domain.image import Image


class Catalogue:
    def __init__(self, images: Iterable[Image] = ()) -> None:
        self._by_name: dict[tuple[str, str], Image] = {}
        self._names_of: dict[str, set[tuple[str, str]]] = {}
        for image in images:
            self.add(image)

    def add(self, image: Image) -> Image | None:
        """Takes the place of an image of the same name, which is returned."""
        key = (image.tenant, image.image_id)
        before = self.remove(*key)
        self._by_name[key] = image
        self._names_of.setdefault(image.digest, set()).add(key)
        return before

    def remove(self, tenant: str, image_id: str) -> Image | None:
        image = self._by_name.pop((tenant, image_id), None)
        if image is not None:
            names = self._names_of[image.digest]
            names.discard((tenant, image_id))
            if not names:
                del self._names_of[image.digest]
        return image

    def is_referenced(self, digest: str) -> bool:
        return digest in self._names_of

    def find(self, tenant: str, image: str) -> Image | None:
        """By name, or by digest: then the tenant's first name that points to it."""
        if not is_digest(image):
            return self._by_name.get((tenant, image))
        names = sorted(key for key in self._names_of.get(image, ()) if key[0] == tenant)
        return self._by_name[names[0]] if names else None

    def find_anywhere(self, digest: str) -> Image | None:
        """Whosever it is: for hosts, which are told of digests only."""
        names = sorted(self._names_of.get(digest, ()))
        return self._by_name[names[0]] if names else None

    def of_tenant(self, tenant: str) -> list[Image]:
        """`-`: of all."""
        return [image for image in self._by_name.values() if tenant in ("-", image.tenant)]
