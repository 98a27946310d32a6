"""One person, painted from back to front."""

from tfrecords_tools.world import clothing
from tfrecords_tools.world.body import Body, Stance
from tfrecords_tools.world.people import Bag, Person
from tfrecords_tools.world.tubes import Canvas


def paint_person(canvas: Canvas, person: Person, stance: Stance) -> None:
    """Paint somebody and the shadow at the feet; what is nearer to the camera hides what is behind it."""
    body = Body(person, stance)
    frontal = body.front > 0
    bag_far = person.bag == Bag.SHOULDER and body.across > 0.1
    canvas.shadow(stance.x, stance.y, 0.2 * stance.size * stance.stretch, 0.035 * stance.size)
    if person.bag == Bag.BACKPACK and frontal:
        clothing.backpack(canvas, body)
    if bag_far:
        clothing.shoulder_bag(canvas, body)
    clothing.arm(canvas, body, 0)
    if frontal:
        clothing.hair_behind(canvas, body)
    clothing.lower_garment(canvas, body)
    clothing.upper_garment(canvas, body)
    clothing.straps(canvas, body)
    if person.bag == Bag.BACKPACK and not frontal:
        clothing.backpack(canvas, body)
    clothing.head(canvas, body)
    if not frontal:
        clothing.hair_behind(canvas, body)
    clothing.hat(canvas, body)
    clothing.arm(canvas, body, 1)
    if person.bag == Bag.SHOULDER and not bag_far:
        clothing.shoulder_bag(canvas, body)
